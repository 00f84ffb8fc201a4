"""Stages as functions: a whole small pipeline in one process, its runs here or in worker processes."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from faulty import FAULTY, job_of, when
from mindgap.base.errors import MindGapError
from mindgap.core import loop
from mindgap.core.params import load_params
from mindgap.core.records import CURVE_COLUMNS, RecordError, digest_of, numbers_digest, seal, unseal
from mindgap.data.errors import DataError
from mindgap.engine import sweep
from mindgap.engine.jobs import StoredModel
from mindgap.engine.machine import Machine, fork_server
from mindgap.engine.status import statuses
from mindgap.engine.sweep import execute
from mindgap.parts.query import METHODS
from mindgap.parts.query.contract import Method
from mindgap.results.reading import ReportError
from mindgap.stages import runs
from mindgap.stages.paths import CURVES, places
from mindgap.stages.prepare import prepare_stage
from mindgap.stages.report import report_stage
from mindgap.stages.runs import acquire_stage, train_stage
from small_project import params_in, small

MISSING = places("missing")


def run_all(params) -> bytes:
    train_stage(params, "missing", "low")
    acquire_stage(params, "missing", "low")
    return (CURVES / "missing-low.csv").read_bytes()


def records() -> list[dict]:
    lines = (MISSING.runs / "missing-low" / "records.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_stages_write_models_records_curves_and_a_report(project):
    params = params_in(project)
    run_all(params)
    assert sorted(p.name for p in (MISSING.models / "missing-low").iterdir()) == [
        f"moddrop-{seed}.{end}" for seed in (0, 1) for end in ("json", "safetensors")
    ]
    found = records()
    assert len(found) == 2 * 2 * 3
    assert {r["cell"]["query"] for r in found} == {"random", "badge"}
    provenance = found[0]["provenance"]
    assert {"commit", "code", "data", "versions", "settings", "device"} <= set(provenance)
    lines = (CURVES / "missing-low.csv").read_text().splitlines()
    assert len(lines) == 1 + 12 * 3
    report_stage(params)
    assert (project / "reports" / "index.html").exists()
    metrics = json.loads((project / "reports" / "metrics.json").read_text())
    assert set(metrics["weak"]["missing"]["low"]["moddrop"]) == {"random", "badge"}
    row = lines[-1].split(",")
    row[CURVE_COLUMNS.index("ece")] = "0.123"
    (CURVES / "missing-low.csv").write_text("\n".join([*lines[:-1], ",".join(row), ""]))
    with pytest.raises(ReportError, match=r"missing-low.csv is not what was written"):
        report_stage(params)


def test_two_workers_give_what_one_gives(project, tmp_path, monkeypatch, capsys):
    params = params_in(project)
    one = run_all(params)
    monkeypatch.setenv("MINDGAP_STORE", str(tmp_path / "another"))
    monkeypatch.setenv("MINDGAP_WORKERS", "2")
    assert run_all(params) == one
    assert "acquire missing-low: 4 runs, 0 finished before, 0 begun" in capsys.readouterr().out


def test_a_longer_list_computes_only_what_is_missing(project, capsys):
    first = run_all(params_in(project))
    capsys.readouterr()
    second = run_all(params_in(project, query=["random", "badge", "entropy"]))
    assert "acquire missing-low: 6 runs, 4 finished before" in capsys.readouterr().out
    assert set(first.splitlines()) < set(second.splitlines())
    run_all(params_in(project, query_settings={"bald": {"passes": 7}}))
    assert "4 runs, 4 finished before" in capsys.readouterr().out


def test_methods_of_one_seed_start_from_the_same_point(project):
    run_all(params_in(project))
    starts = {}
    for record in records():
        if record["round"] == 0:
            seed = record["cell"]["seed"]
            starts.setdefault(seed, []).append((record["start_ids"], record["metrics"], record["fit"]))
    assert all(one == rest for one, rest in starts.values())
    assert starts[0] != starts[1]


def altered(**changes):
    """Damage: values of a record changed, its checksum made anew."""

    def damage(path: Path) -> None:
        body = {**unseal(path), **changes}
        body = {key: value for key, value in body.items() if value is not None}
        sha256 = digest_of(body) if "NaN" not in json.dumps(body) else "0"
        path.write_text(json.dumps({**body, "sha256": sha256}))

    return damage


def of_the_round_before(path: Path) -> None:
    before = unseal(path.with_name("round_000.json"))["acquired_ids"]
    altered(acquired_ids=before)(path)


def rows(subset: str, **values: float) -> list[dict]:
    return [{"evaluator": k, "subset": subset, "name": k, "value": value} for k, value in values.items()]


RECORD_DAMAGE = {
    "half written": lambda path: path.write_text(path.read_text()[:100]),
    "empty": lambda path: path.write_text(""),
    "null": lambda path: path.write_text("null"),
    "a list": lambda path: path.write_text("[]"),
    "no text": lambda path: path.write_bytes(b"\xff\xfe"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "edited": lambda path: path.write_text(path.read_text().replace('"labelled":30', '"labelled":31')),
    "no metrics": altered(metrics=None),
    "metrics of another subset": altered(metrics=rows("sound", balanced_accuracy=1.0, accuracy=1.0, ece=0.0)),
    "a number that is none": altered(metrics=rows("rare", balanced_accuracy=float("nan"))),
    "a share above 1": altered(metrics=rows("rare", balanced_accuracy=1.5, accuracy=1.0, ece=0.0)),
    "a point without its error": altered(metrics=rows("rare", balanced_accuracy=1.0, accuracy=1.0)),
    "a word for a number": altered(labelled="thirty"),
    "other rounds": altered(rounds=4),
    "too few picks": altered(acquired_ids=[1]),
    "ids of an earlier round": of_the_round_before,
    "another cell": altered(cell={"dataset": "missing"}),
}


def test_a_damaged_record_is_computed_again(project, tmp_path, capsys):
    params = params_in(project, seeds=[0], query=["random"])
    before = run_all(params)
    (victim,) = (tmp_path / "store").glob("*/round_001.json")
    for damage in RECORD_DAMAGE.values():
        damage(victim)
        capsys.readouterr()
        acquire_stage(params, "missing", "low")
        assert (CURVES / "missing-low.csv").read_bytes() == before
        out = capsys.readouterr().out
        assert "1 runs, 0 finished before, 1 begun" in out
        assert re.search(rf"missing-low-random-moddrop-0: .*{victim.name} .*; it is computed again\n", out)


MODEL_DAMAGE = {
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:-9] + bytes(9)),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", MODEL_DAMAGE.values(), ids=MODEL_DAMAGE)
def test_damaged_weights_in_the_store_are_computed_again(project, tmp_path, damage, capsys):
    params = params_in(project, seeds=[0], query=["random"])
    before = run_all(params)
    (weights,) = (tmp_path / "store").glob("*/weights.safetensors")
    whole = weights.read_bytes()
    damage(weights)
    assert run_all(params) == before
    assert weights.read_bytes() == whole
    assert "train missing-low: 1 runs, 0 finished before, 0 begun\nmissing-low" in capsys.readouterr().out


def better(path: Path) -> None:
    path.write_text(re.sub(r'"value": 0\.\d+', '"value": 0.99', path.read_text(), count=1))


@pytest.mark.parametrize(
    ("end", "damage"),
    [*(("safetensors", damage) for damage in MODEL_DAMAGE.values()), ("json", better), ("json", Path.unlink)],
)
def test_an_initial_model_that_is_not_what_was_written_is_refused(project, end, damage):
    params = params_in(project, seeds=[0], query=["random"])
    before = run_all(params)
    damage(MISSING.models / "missing-low" / f"moddrop-0.{end}")
    with pytest.raises(RecordError, match=rf"moddrop-0\.{end} .*dvc repro -f -s train@missing-low"):
        acquire_stage(params, "missing", "low")
    assert run_all(params) == before


def test_the_initial_model_of_another_run_is_refused(project):
    params = params_in(project, query=["random"])
    train_stage(params, "missing", "low")
    models = MISSING.models / "missing-low"
    for end in ("json", "safetensors"):
        (models / f"moddrop-1.{end}").write_bytes((models / f"moddrop-0.{end}").read_bytes())
    with pytest.raises(RecordError, match=r"moddrop-1\.json is of other parameters.*dvc repro -f"):
        acquire_stage(params, "missing", "low")


def test_an_initial_model_with_a_right_checksum_and_a_wrong_form_is_refused(project):
    params = params_in(project, seeds=[0], query=["random"])
    train_stage(params, "missing", "low")
    path = MISSING.models / "missing-low/moddrop-0.json"
    record = unseal(path)
    del record["fit"]
    path.write_text(json.dumps(seal(record)))
    with pytest.raises(
        RecordError, match=r"moddrop-0\.json is no record of a model: fit: .*dvc repro -f -s train@"
    ):
        acquire_stage(params, "missing", "low")


def test_a_run_depends_on_the_numbers_of_its_initial_model_and_not_on_its_making(project):
    params = params_in(project, seeds=[0], query=["random"])
    train_stage(params, "missing", "low")
    record = StoredModel.read(MISSING.models / "missing-low/moddrop-0").record
    elsewhere = {**record, "seconds": {"fit": 9.0}, "provenance": {"device": "another"}, "run": "ab" * 32}
    assert numbers_digest(elsewhere) == numbers_digest(record)
    for name in ("metrics", "fit", "start_ids", "weights", "labelled", "cell"):
        assert numbers_digest({**record, name: None}) != numbers_digest(record), name


@pytest.mark.parametrize("lose", ["run", "round"])
def test_a_store_that_loses_a_run_meanwhile_gives_no_curves(project, tmp_path, monkeypatch, lose):
    params = params_in(project, seeds=[0])
    before = run_all(params)
    (CURVES / "missing-low.csv").unlink()

    def execute_and_lose(jobs, *rest):
        execute(jobs, *rest)
        folder = jobs[1].record_store.folder
        shutil.rmtree(folder) if lose == "run" else (folder / "round_002.json").unlink()

    with monkeypatch.context() as patch:
        patch.setattr(runs, "execute", execute_and_lose)
        lost = f"badge-moddrop-0: the store lost {3 if lose == 'run' else 1} of 3 rounds .*repeat the command"
        with pytest.raises(RecordError, match=lost):
            acquire_stage(params, "missing", "low")
    assert not (CURVES / "missing-low.csv").exists()
    assert run_all(params) == before


def test_a_failing_method_fails_the_stage_and_the_other_runs_are_kept(project, monkeypatch, capsys):
    monkeypatch.setitem(METHODS, "stuttering", Method(lambda view, n: torch.zeros(n, dtype=torch.long)))
    params = params_in(project, query=["stuttering", "random"])
    train_stage(params, "missing", "low")
    with pytest.raises(sweep.SweepError, match=r"(?s)2 of 4 runs failed.*stuttering.*more than once"):
        acquire_stage(params, "missing", "low")
    acquire_stage(params_in(project, query=["random"]), "missing", "low")
    assert "2 runs, 2 finished before" in capsys.readouterr().out


def test_an_error_of_a_part_in_a_run_names_it_and_one_of_ours_comes_with_its_traceback(project, monkeypatch):
    monkeypatch.setitem(METHODS, "broken", Method(lambda view, n: 1 / 0))
    params = params_in(project, query=["broken"])
    train_stage(params, "missing", "low")
    told = r"(?s)low-broken-moddrop-0: query method 'broken' failed with ZeroDivisionError.*test_sweep\.py"
    with pytest.raises(sweep.SweepError, match=told) as error:
        acquire_stage(params, "missing", "low")
    assert "Traceback" not in str(error.value)
    monkeypatch.setattr(loop, "view_of", lambda *_: 1 / 0)
    with pytest.raises(sweep.SweepError, match=r"(?s)-random-moddrop-0: Traceback.*ZeroDivisionError"):
        acquire_stage(params_in(project, query=["random"]), "missing", "low")


@pytest.mark.parametrize(("damage", "message"), [("truncated", "truncated"), ("altered", "was altered")])
def test_a_damaged_data_file_stops_with_its_name(project, damage, message):
    path = MISSING.prepared / "train.rare.npy"
    data = path.read_bytes()
    path.write_bytes(data[:-1000] if damage == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DataError, match=rf"train\.rare\.npy .*{message}.*dvc repro -f prepare@missing"):
        train_stage(params_in(project), "missing", "low")


def test_prepared_data_too_small_for_what_is_asked_is_named(project):
    params = params_in(project)
    raw = small()
    raw["scales"]["tiny"]["budget"]["missing"]["low"]["initial"] = 500
    (project / "params.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(
        MindGapError, match=r"has 200 training samples, but missing-low .* needs 540.*dvc repro"
    ):
        train_stage(load_params(project / "params.yaml"), "missing", "low")
    train_stage(params, "missing", "low")


@pytest.mark.parametrize(("name", "regime"), [("mising", "low"), ("missing", "lo")])
def test_an_unknown_dataset_or_regime_lists_the_known(project, name, regime):
    with pytest.raises(
        MindGapError, match=r"unknown '(mising|lo)'; known in scales\.tiny\.budget.*: .*(unique|mid)"
    ):
        train_stage(params_in(project), name, regime)


def test_a_missing_initial_model_names_the_stage_that_makes_it(project):
    with pytest.raises(MindGapError, match=r"moddrop-0\.json is missing.*dvc repro -f -s train@missing-low"):
        acquire_stage(params_in(project), "missing", "low")


def test_a_killed_worker_is_replaced_and_only_its_run_goes_back(trained, capsys):
    jobs = [job_of(trained, "slow", seconds=1.0), job_of(trained, "slower", seconds=1.0)]
    killed = []

    def kill_one(where):
        killed.extend(job.record_store.folder / "round_000.json" for job in jobs)
        times.extend(path.stat().st_mtime_ns for path in killed)
        workers()[0].kill()

    times = []
    killer = when(lambda: all(job.finished_rounds for job in jobs), kill_one)
    execute(jobs, Machine(2, ("cpu",)), "acquire")
    killer.join()
    assert [job.finished_rounds for job in jobs] == [3, 3]
    assert [path.stat().st_mtime_ns for path in killed] == times
    line = r"missing-low-slow(er)?-moddrop-0: worker [12] died \(killed by SIGKILL\); it goes on at round 1\n"
    assert len(re.findall(line, capsys.readouterr().out)) == 1
    assert not workers()


def test_a_run_whose_workers_die_is_given_up_and_the_others_are_kept(trained):
    jobs = [job_of(trained, "slow", seconds=30.0), job_of(trained, "random"), job_of(trained, "badge")]
    over = threading.Event()

    def kill():
        while not over.wait(0.05):
            if jobs[1].finished_rounds == jobs[2].finished_rounds == 3:
                for worker in workers():
                    worker.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    message = (
        r"1 of 3 runs failed; .*\n.*-slow-moddrop-0: lost 3 times, last: worker [12] died \(killed by SIGKILL"
    )
    with pytest.raises(sweep.SweepError, match=message):
        execute(jobs, Machine(2, ("cpu",)), "acquire")
    over.set()
    killer.join()


def workers() -> list[psutil.Process]:
    """The worker processes of this one."""
    servers = [p for p in psutil.Process().children() if "forkserver" in " ".join(p.cmdline())]
    return [worker for server in servers for worker in server.children()]


@pytest.mark.parametrize("machine", [Machine(1, ("cpu",)), Machine(2, ("cpu",))], ids=["here", "workers"])
def test_a_run_too_large_for_its_gpu_is_repeated_alone_in_smaller_passes(
    trained, machine, monkeypatch, capsys
):
    jobs = [
        job_of(trained, "hungry", most=64),
        job_of(trained, "random"),
        job_of(trained, "hungry", 1, most=3),
    ]
    monkeypatch.setitem(METHODS, "hungry", FAULTY["hungry"])  # a worker gets it with the job
    message = (
        r"1 of 3 runs failed.*\nmissing-low-hungry-moddrop-1: the memory of its GPU did not do, even alone "
        r"and with passes 16 times smaller \(CUDA out of memory\. Tried to .*\)\. End other programs"
    )
    with pytest.raises(sweep.SweepError, match=message):
        execute(jobs, machine, "acquire")
    assert [job.finished_rounds for job in jobs] == [3, 3, 0]
    told = r"hungry-moddrop-(\d): GPU memory exhausted at round 0 .* alone on a GPU(.*)\n"
    found = re.findall(told, capsys.readouterr().out)
    smaller = ["", *(f" and with passes {n} times smaller" for n in (4, 16))]
    for seed in "01":
        assert [how for of, how in found if of == seed] == smaller


def test_a_run_that_another_command_works_on_is_waited_for(trained, capsys):
    held, free = job_of(trained, "random"), job_of(trained, "badge")
    lock = held.record_store.hold()
    releaser = when(lambda: free.finished_rounds == 3, lambda _: lock.close())
    execute([held, free], Machine(1, ("cpu",)), "acquire")
    releaser.join()
    assert held.finished_rounds == 3
    told = "missing-low-random-moddrop-0: another process works on it; waiting\n"
    assert capsys.readouterr().out.count(told) == 1


def _threads(pipe) -> None:
    import numpy as np
    from threadpoolctl import threadpool_info

    np.ones((9, 9)) @ np.ones((9, 9))
    pipe.send([(pool["user_api"], pool["num_threads"]) for pool in threadpool_info()])


def test_libraries_have_one_thread_in_a_worker():
    context = fork_server()
    ours, theirs = context.Pipe()
    process = context.Process(target=_threads, args=(theirs,))
    process.start()
    pools = ours.recv()
    process.join()
    assert {kind for kind, _ in pools} >= {"blas", "openmp"}
    assert {threads for _, threads in pools} == {1}
    assert "OPENBLAS_NUM_THREADS" not in os.environ


def test_a_killed_command_takes_its_workers_with_it(project, tmp_path):
    raw = small(seeds=[0, 1, 2, 3])
    raw["scales"]["tiny"]["recipe"]["missing"]["all"]["epochs"] = 500
    (project / "params.yaml").write_text(yaml.safe_dump(raw))
    command = [sys.executable, "-c", "from mindgap.stages.cli import main; main()", "train", "missing", "low"]
    process = psutil.Popen(command, env={**os.environ, "MINDGAP_WORKERS": "2"}, stdout=subprocess.DEVNULL)
    deadline, workers = time.monotonic() + 60, []
    while len(workers) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
        with contextlib.suppress(psutil.NoSuchProcess):  # git, say, which ends while it is looked at
            workers = [w for p in process.children() for w in p.children()]
    assert len(workers) == 2
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MINDGAP_WORKERS", "two", "MINDGAP_WORKERS is 'two'"),
        ("MINDGAP_WORKERS", "0", "MINDGAP_WORKERS is '0'"),
        ("MINDGAP_RUNS_PER_GPU", "0", "MINDGAP_RUNS_PER_GPU is '0'"),
        ("MINDGAP_DEVICES", "cuda", "MINDGAP_DEVICES names 'cuda'; this machine has cpu"),
        ("MINDGAP_EXECUTOR", "slurm", "MINDGAP_EXECUTOR is 'slurm': make it local or ray"),
        ("MINDGAP_DEVICES", "cuda:99", "MINDGAP_DEVICES names 'cuda:99'; this machine has cpu"),
        ("MINDGAP_DEVICES", "tpu", "MINDGAP_DEVICES names 'tpu'"),
    ],
)
def test_an_impossible_machine_is_refused(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(MindGapError, match=message):
        Machine.from_environment()


def test_the_machine_is_what_the_environment_says(monkeypatch):
    monkeypatch.setenv("MINDGAP_WORKERS", "3")
    monkeypatch.setenv("MINDGAP_DEVICES", "cpu")
    assert Machine.from_environment() == Machine(3, ("cpu",))


def test_several_runs_share_each_gpu_if_so_asked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("MINDGAP_RUNS_PER_GPU", "3")
    assert Machine.from_environment() == Machine(6, ("cuda:0", "cuda:1"), "local", 3)
    monkeypatch.setenv("MINDGAP_DEVICES", "cuda:1")
    assert Machine.from_environment() == Machine(3, ("cuda:1",), "local", 3)
    monkeypatch.setenv("MINDGAP_WORKERS", "4")
    assert Machine.from_environment() == Machine(4, ("cuda:1",), "local", 3)


def test_a_dataset_without_its_files_passes_its_line_on_to_every_stage(project, monkeypatch, capsys):
    monkeypatch.setenv("MINDGAP_OFFLINE", "1")
    params = params_in(project, dataset=["missing", "share"], query=["random"], seeds=[0])
    prepare_stage(params, "share")
    assert "share is skipped: " in capsys.readouterr().out
    for name in ("missing", "share"):
        train_stage(params, name, "low")
        acquire_stage(params, name, "low")
    share = places("share")
    lines = {
        (folder / "skipped.txt").read_text()
        for folder in (share.prepared, share.models / "share-low", share.runs / "share-low")
    }
    assert len(lines) == 1
    assert (CURVES / "share-low.csv").read_text().count("\n") == 1
    capsys.readouterr()
    report_stage(params)
    assert "share is skipped: " in capsys.readouterr().out
    assert 'id="share"' not in (project / "reports/index.html").read_text()
    with pytest.raises(MindGapError, match="nothing to report: share were skipped"):
        report_stage(params_in(project, dataset=["share"], query=["random"], seeds=[0]))


def test_a_credentialed_dataset_keeps_everything_in_its_own_project(monkeypatch):
    monkeypatch.setenv("MINDGAP_STORE", "/shared/store")
    mimic = places("mimic")
    home = Path("data/mimic")
    assert all(home in path.parents for path in vars(mimic).values() if isinstance(path, Path))
    assert mimic.stage == "extract_mimic"
    monkeypatch.setenv("MINDGAP_STORE_MIMIC", "/private/store")
    assert places("mimic").store == Path("/private/store")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_is_one_line_that_says_what_is_kept(project, workers):
    raw = small(seeds=[0, 1])
    raw["scales"]["tiny"]["recipe"]["missing"]["all"]["epochs"] = 500
    (project / "params.yaml").write_text(yaml.safe_dump(raw))
    command = [sys.executable, "-c", "from mindgap.stages.cli import main; main()", "train", "missing", "low"]
    process = psutil.Popen(
        command,
        env={**os.environ, "MINDGAP_WORKERS": workers},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    store = places("missing").store
    deadline = time.monotonic() + 60
    while not any(status.running for status in statuses(store).values()) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "train missing-low: 2 runs, 0 finished before" in output
    assert error == "mindgap: stopped; finished rounds are kept, the same command goes on there\n"
    assert not statuses(store)
