import sys

import pytest

from mindgap import cli
from mindgap.progress import Progress


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mindgap", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code


def test_a_mendable_error_is_one_message_and_no_traceback(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINDGAP_WORKERS", "1")
    for command in (["check-params"], ["prepare", "missing"], ["train", "missing", "low"], ["report"]):
        assert run(monkeypatch, *command) == 1
        error = capsys.readouterr().err
        assert error.startswith("mindgap: params.yaml is not here")
        assert "Traceback" not in error
    assert run(monkeypatch, "acquire", "missing", "low") == 1


def test_help_names_every_step(monkeypatch, capsys):
    assert run(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    steps = (
        "check-params",
        "plan",
        "prepare",
        "train",
        "acquire",
        "report",
        "keep",
        "publish",
        "watch",
        "sensitivity",
    )
    assert all(step in shown for step in steps)


def test_checked_parameters_leave_a_mark_and_say_what_is_to_be_done(monkeypatch, capsys, tmp_path):
    from small_project import params_in

    params_in(tmp_path)
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "check-params") == 0
    assert (tmp_path / "data" / "params.ok").read_text() == "ok\n"
    assert capsys.readouterr().out.startswith("4 runs at scale tiny: ")


def test_progress_is_a_bar_in_a_terminal_and_lines_elsewhere(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("acquire", total=3) as progress:
        for _ in range(3):
            progress.advance()
    assert "3/3" in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    monkeypatch.setattr("mindgap.progress.LINE_SECONDS", 0.0)
    with Progress("acquire", total=3, unit="rounds") as progress:
        progress.advance(2)
    assert "acquire: 2/3 rounds" in capsys.readouterr().out
