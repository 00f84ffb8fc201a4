"""What is told of a credentialed dataset, and where the rest goes."""

import errno
import re
import stat
import subprocess
from pathlib import Path

import polars as pl
import pytest

from mindgap.data.errors import DataError
from mindgap.engine.ray import ClusterError, refuse_credentialed
from mindgap.stages import cli, prepare
from mindgap.stages.private import kept_private

TOP = Path(__file__).parents[1]
WORDS = "could not parse `10014729` as a date"


def failing(error):
    def fail(*arguments):
        raise error

    return fail


def prepare_by_hand(monkeypatch, error, dataset="mimic"):
    """`mindgap prepare mimic` with a stage that fails."""
    monkeypatch.setattr(cli, "_params_for", lambda *names: None)
    monkeypatch.setattr(prepare, "prepare_stage", failing(error))
    monkeypatch.setattr("sys.argv", ["mindgap", "prepare", dataset])
    cli.main()


def test_words_of_an_unforeseen_error_stay_in_a_file_for_its_owner(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINDGAP_STORE_MIMIC", "store")  # beside which git looks
    with pytest.raises(SystemExit) as end:
        prepare_by_hand(monkeypatch, pl.exceptions.ComputeError(WORDS))
    told, log = capsys.readouterr(), Path("data/mimic/.mindgap/errors.log")
    assert end.value.code == 1
    assert re.fullmatch(r"mindgap: ComputeError in test_private.py, line \d+: its words may .+\n", told.err)
    assert str(log) in told.err
    assert WORDS in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_neither_git_nor_dvc_takes_that_file():
    log = "data/mimic/.mindgap/errors.log"
    subprocess.run(["git", "check-ignore", "-q", log], cwd=TOP, check=True)
    assert "/.mindgap/" in (TOP / "data/mimic/.dvcignore").read_text().splitlines()


@pytest.mark.parametrize(
    "error",
    [
        DataError("patients.csv, line 7: gender is 'a', not F or M"),
        OSError(errno.ENOSPC, "No space left on device", "data/mimic/prepared"),
    ],
)
def test_what_quotes_nothing_is_told(monkeypatch, tmp_path, error):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(type(error), match=re.escape(str(error))), kept_private("mimic"):
        raise error
    assert not list(tmp_path.iterdir())


def test_a_path_with_an_id_is_not_told(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    error = PermissionError(errno.EACCES, "Permission denied", "ecg/files/p1001/p10014729/s41420867")
    with pytest.raises(Exception, match="PermissionError in") as told, kept_private("mimic"):
        raise error
    assert "10014729" not in str(told.value)


def test_of_other_datasets_everything_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=WORDS), kept_private("missing"):
        raise ValueError(WORDS)


def test_what_slurm_writes_into_the_checkout_is_taken_by_nobody():
    script = (TOP / "cluster/mindgap.sbatch").read_text()
    output = re.search(r"^#SBATCH --output=(\S+)$", script, re.M)[1].replace("%j", "1234")
    subprocess.run(["git", "check-ignore", "-q", output], cwd=TOP, check=True)
    subprocess.run(["dvc", "check-ignore", "-q", output], cwd=TOP, check=True)
    # SLURM makes no folder, and a job whose output has none ends at once.
    listed = subprocess.run(
        ["git", "ls-files", Path(output).parent], cwd=TOP, capture_output=True, check=True
    )
    assert listed.stdout


def test_a_credentialed_dataset_stays_out_of_ray_unless_it_is_allowed(monkeypatch):
    with pytest.raises(
        ClusterError, match=r"mimic is credentialed, .+ MINDGAP_EXECUTOR=local .+_CREDENTIALED=1"
    ):
        refuse_credentialed("mimic")
    refuse_credentialed("share")
    monkeypatch.setenv("MINDGAP_RAY_CREDENTIALED", "1")
    refuse_credentialed("mimic")
