"""What is shown of work under way: a plain line, a live view, and the small file for `mindgap watch`."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest
from rich.console import Console

from mindgap.base import progress
from mindgap.base.progress import Progress, Running, running_table
from mindgap.engine.status import SILENT_SECONDS, Board, Status, status_folder, statuses, this_machine
from mindgap.stages.watch import watch_stage


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MINDGAP_STORE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def some(n: int) -> tuple[Running, ...]:
    return tuple(Running(f"run-{i}", f"worker {i}", i % 5, 5, time.time() - 70) for i in range(n))


def written(store, **changes) -> Status:
    """A status of this process and this second, but for `changes`, as a command leaves it."""
    status = Status("acquire it", socket.gethostname(), os.getpid(), time.time(), 3, 20, some(1))
    status = replace(status, **{"machine": this_machine()} | changes)
    status_folder(store).mkdir(exist_ok=True)
    (status_folder(store) / f"{status.title}.json").write_text(json.dumps(asdict(status)))
    return status


def text_of(renderable, width=120) -> str:
    console = Console(width=width)
    with console.capture() as shown:
        console.print(renderable)
    return shown.get()


def test_the_plain_line_names_a_few_runs_and_counts_the_rest(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with Progress("acquire", total=20, unit="rounds") as shown:
        shown.reach(0)
        assert capsys.readouterr().out == ""
        shown.reach(0, some(2))
        line = "acquire: 0/20 rounds; 2 under way: run-0 (worker 0, 0/5), run-1 (worker 1, 1/5)\n"
        assert capsys.readouterr().out == line
        shown.reach(5, some(6))
    line = capsys.readouterr().out
    assert line.startswith("acquire: 5/20 rounds, ")
    assert line.endswith(
        "s left; 6 under way: "
        + ", ".join(f"run-{i} (worker {i}, {i}/5)" for i in range(4))
        + ", and 2 more\n"
    )


def test_in_a_terminal_the_total_and_the_runs_are_shown_below_each_other(monkeypatch):
    shown = Progress("acquire", total=20, done=3)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with shown:
        shown.reach(7, some(2))
        lines = text_of(shown._bar.get_renderable()).splitlines()
    assert [line.split()[0] for line in lines] == ["acquire", "run-0", "run-1"]
    assert "7/20" in lines[0]
    assert lines[2].split() == ["run-1", "1/5", "worker", "1", "70", "s"]


def test_a_long_table_is_cut_and_brackets_are_no_markup():
    lines = text_of(running_table([Running("[red]", "here", 0, 1, 0.0), *some(24)])).splitlines()
    assert len(lines) == 21
    assert lines[0].split()[0] == "[red]"
    assert lines[-1].strip() == "and 5 more"


def test_the_board_writes_while_its_process_is_busy_and_cleans_up(store):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    written(store, pid=dead.pid)
    with Progress("acquire it", total=5) as shown, Board(store, shown).shown() as board:
        board.begin("digest", "missing-low", "worker 1", 1, 5)
        board.advance("digest")
        time.sleep(1.3)
        (status,) = statuses(store).values()
        assert (status.pid, status.done, status.total) == (os.getpid(), 1, 5)
        (one,) = status.running
        assert (one.name, one.where, one.done, one.total) == ("missing-low", "worker 1", 2, 5)
        board.end("digest")
        time.sleep(1.3)
        assert statuses(store).popitem()[1].running == ()
        assert not status.died
    assert not statuses(store)


def test_a_command_that_fails_leaves_no_file_behind(store):
    with pytest.raises(KeyboardInterrupt), Board(store, Progress("acquire it", total=5)).shown():
        raise KeyboardInterrupt
    assert not statuses(store)


def test_watch_shows_commands_and_their_runs(store, capsys):
    watch_stage(once=True)
    assert capsys.readouterr().out == "nothing is under way here\n"
    written(store)
    written(store, title="train it", running=(), host="another")
    watch_stage(once=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"acquire it: 3/20 rounds; process {os.getpid()} on {socket.gethostname()}, 1 under way"
    )
    assert lines[1].split() == ["run-0", "0/5", "worker", "0", "70", "s"]
    assert lines[2] == f"train it: 3/20 rounds; process {os.getpid()} on another, 0 under way"


@pytest.mark.parametrize("silent", [False, True])
def test_watch_says_when_a_command_died(store, capsys, silent):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    if silent:  # on another machine there is no process to ask for
        written(store, host="another", written=time.time() - SILENT_SECONDS - 1)
    else:
        written(store, pid=process.pid)
    watch_stage(once=True)
    out = capsys.readouterr().out
    assert "acquire it: 3/20 rounds; its command died (process" in out
    assert f"no word for {31 if silent else 0} s): repeat it, finished rounds are kept" in out
    assert "run-0" not in out


def test_a_machine_of_the_same_name_is_another_one(store, monkeypatch, tmp_path):
    """Its processes are not to be asked for here, and both have a file of their own, with one number too."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    there = written(store, pid=process.pid)
    assert there.died
    boot = tmp_path / "boot_id"
    boot.write_text("another\n")
    with Progress("train it", total=5) as one, Board(store, one).shown():
        monkeypatch.setattr("mindgap.engine.status.BOOT", boot)
        assert not there.died
        with Progress("train it", total=5) as other, Board(store, other).shown():
            deadline = time.monotonic() + 20
            while len(statuses(store)) < 3:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert len(statuses(store)) == 2


@pytest.mark.parametrize("content", ["", "{", "null", "[]", '{"title": 5}', "\xff", '{"title": "x"}'])
def test_a_file_that_is_no_status_is_passed_over_with_a_line(store, content, capsys):
    written(store)
    foreign = status_folder(store) / "a-foreign.json"
    foreign.write_text(content, encoding="latin-1")
    (status_folder(store) / "folder.json").mkdir()
    watch_stage(once=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("acquire it: 3/20 rounds; process")
    assert f"{foreign} is not the status of a command and is passed over: delete it" in lines
    assert f"{foreign.parent}/folder.json is not the status of a command" in lines[-1]
    with Progress("acquire it", total=5) as shown, Board(store, shown).shown():
        pass
    assert f"{foreign} is not the status" in capsys.readouterr().out


def test_a_store_without_room_for_a_status_stops_nothing(store):
    status_folder(store).write_text("no folder")
    with Progress("acquire it", total=5) as shown, Board(store, shown).shown() as board:
        board.found(1)
    assert not statuses(store)
