import json
import multiprocessing

import pytest

from mindgap.records import RecordError, RunStore, digest_of, store_root, write_atomically


def filled(tmp_path, rounds=3) -> RunStore:
    store = RunStore("ab" * 32, 5, tmp_path)
    for round in range(rounds):
        store.append({"round": round, "acquired_ids": [round], "memory": {}})
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
    with pytest.raises(RecordError, match="belongs to round 0 of run abab"):
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
