import json
import multiprocessing
import os
import resource
import signal
import subprocess
import time

import pytest

from mindgap.base.errors import MindGapError
from mindgap.core.records import (
    FORGOTTEN_SECONDS,
    RecordError,
    RunStore,
    digest_of,
    seal,
    store_root,
    unseal,
    write_atomically,
)


def filled(tmp_path, rounds=3) -> RunStore:
    store = RunStore("ab" * 32, 5, tmp_path)
    for round in range(rounds):
        store.append({"round": round, "acquired_ids": [round]})
    return store


def test_records_come_back_in_order(tmp_path):
    store = filled(tmp_path)
    assert [r["acquired_ids"] for r in store.read()] == [[0], [1], [2]]
    assert store.finished_rounds == 3
    assert RunStore("cd" * 32, 5, tmp_path).read() == []


def test_a_half_written_record_is_named_and_the_rounds_before_it_are_kept(tmp_path):
    store = filled(tmp_path)
    path = store.folder / "round_002.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(RecordError, match=r"round_002\.json is half written.*delete it and run again"):
        store.read()
    path.unlink()
    assert store.finished_rounds == len(store.read()) == 2


def test_an_altered_record_is_named(tmp_path):
    store = filled(tmp_path)
    path = store.folder / "round_001.json"
    path.write_text(path.read_text().replace('"acquired_ids":[1]', '"acquired_ids":[7]'))
    with pytest.raises(RecordError, match=r"round_001\.json was changed"):
        store.read()


def test_a_record_of_another_run_is_refused(tmp_path):
    store, other = filled(tmp_path), RunStore("ef" * 32, 5, tmp_path)
    other.folder.mkdir()
    (other.folder / "round_000.json").write_text((store.folder / "round_000.json").read_text())
    with pytest.raises(RecordError, match=r"not of round 0 of 5 of run efef"):
        other.read()


def test_a_number_that_is_none_cannot_be_recorded(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        RunStore("ab" * 32, 5, tmp_path).append({"round": 0, "loss": float("nan")})


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")
    assert path.read_bytes() == b"old"


def _hold(tmp_path, ready, release):
    with RunStore("ab" * 32, 5, tmp_path).hold():
        ready.set()
        release.wait(30)


def test_a_run_is_held_by_one_process_and_a_killed_one_frees_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready, release))
    holder.start()
    assert ready.wait(60)
    store = RunStore("ab" * 32, 5, tmp_path)
    assert store.hold() is None
    holder.kill()
    holder.join()
    with store.hold():
        assert store.hold() is None
    store.hold().close()


def test_digest_ignores_the_order_of_keys():
    assert digest_of({"a": 1, "b": [2]}) == digest_of(json.loads('{"b": [2], "a": 1}'))


def test_the_store_lies_in_the_main_checkout_also_in_a_temporary_experiment(monkeypatch, tmp_path):
    monkeypatch.delenv("MINDGAP_STORE", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert store_root() == tmp_path / ".mindgap" / "store"
    monkeypatch.setenv("MINDGAP_STORE", "/elsewhere")
    assert str(store_root()) == "/elsewhere"


def test_the_store_may_be_in_the_home_and_is_the_default_where_none_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MINDGAP_STORE", "~/store")
    assert store_root() == tmp_path / "store"
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("MINDGAP_STORE", "")
    assert str(store_root()) == ".mindgap/store"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("file", "is no folder: name one that is in MINDGAP_STORE"),
        ("~nobody-of-this-name/x", "MINDGAP_STORE is "),
    ],
)
def test_a_store_that_cannot_be_one_is_named_with_its_variable(monkeypatch, tmp_path, named, message):
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINDGAP_STORE", named)
    with pytest.raises(MindGapError, match=message):
        store_root()


def test_a_store_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MindGapError, match=r"cannot be written \(Not a directory\).*MINDGAP_STORE.*are kept"):
        RunStore("ab" * 32, 5, tmp_path / "file" / "store").hold()


def test_what_cannot_be_written_whole_leaves_nothing_behind(tmp_path):
    path = tmp_path / "round_000.json"
    write_atomically(path, b"old")
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(MindGapError, match=r"round_000\.json cannot be written \(File too large\)"):
            write_atomically(path, bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [file.name for file in tmp_path.iterdir()] == ["round_000.json"]
    assert path.read_bytes() == b"old"


def test_a_full_disk_is_said_with_what_to_do(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    try:
        store = filled(tmp_path)
        full = (
            r"round_003\.json cannot be written \(No space left on device\): free some space.*rounds are kept"
        )
        with pytest.raises(MindGapError, match=full):
            store.append({"round": 3, "big": "x" * 100_000})
        assert store.finished_rounds == 3
        assert not list(store.folder.glob(".*"))
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_half_written_files_of_killed_processes_go(tmp_path):
    store = filled(tmp_path)
    left = store.folder / ".round_003.json.4711.partial"
    left.write_text("{")
    store.hold().close()
    assert not left.exists()
    left.write_text("{")
    write_atomically(store.folder / "round_003.json", b"{}")
    assert left.exists()  # it may be one that is being written
    os.utime(left, (0, time.time() - FORGOTTEN_SECONDS - 1))
    write_atomically(store.folder / "round_003.json", b"{}")
    assert not left.exists()


def test_a_sealed_file_is_what_was_written_or_an_error(tmp_path):
    path = tmp_path / "sealed.json"
    value = {"recipe": {"learning_rate": 0.1}, "name": "\u00fc"}
    path.write_text(json.dumps(seal(value), indent=1))
    assert unseal(path) == value
    path.write_text(path.read_text().replace("0.1", "0.2"))
    with pytest.raises(RecordError, match=r"sealed\.json was changed after it was written"):
        unseal(path)
    path.unlink()
    with pytest.raises(RecordError, match=r"sealed\.json is missing"):
        unseal(path)
