"""Runs as tasks of a Ray cluster: what one process gives, with workers, nodes and drivers that are killed.

The cluster is a real one of this machine, one for all tests; drivers join it as any other, by its address.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from faulty import job_of, when
from mindgap.engine import ray as cluster
from mindgap.engine.machine import Machine
from mindgap.engine.ray import ClusterError
from mindgap.engine.status import statuses
from mindgap.engine.sweep import SweepError, execute
from mindgap.stages.paths import CURVES
from mindgap.stages.runs import acquire_stage, train_stage
from small_project import params_in

pytestmark = pytest.mark.slow
HERE = Machine(1, ("cpu",))
RAY = Machine(None, ("cpu",), "ray")
CLI = [sys.executable, "-c", "from mindgap.stages.cli import main; main()"]
FREE_OF_RAY = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MINDGAP_"))}


@pytest.fixture(scope="module")
def nodes():
    """A Ray cluster with one node of two cores; workers find the modules of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.QUIET.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        from ray.cluster_utils import Cluster

        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        patch.setenv("RAY_ADDRESS", started.address)
        yield started
        started.shutdown()


@pytest.fixture(scope="module")
def joined(nodes):
    """This process joined to it, for runs that may share workers: each new driver costs new ones."""
    import ray

    ray.init(nodes.address, log_to_driver=False, logging_level="error")
    yield nodes
    ray.shutdown()


@pytest.fixture
def store(tmp_path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def trained(trained, monkeypatch):
    """The parameters of a project with initial models, made in one process."""
    monkeypatch.setenv("MINDGAP_EXECUTOR", "local")
    return trained


def comparable(records) -> list[dict]:
    return [{k: v for k, v in r.items() if k not in ("seconds", "peak_memory", "sha256")} for r in records]


def files_of(job) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in job.record_store.folder.glob("round_*.json")}


def place_of(store: Path, name: str, done: int) -> str | None:
    """Where a run with so many rounds is, by what the driver writes for `mindgap watch`."""
    running = [one for status in statuses(store).values() for one in status.running]
    return next((one.where for one in running if name in one.name and one.done >= done), None)


def home_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("HOME")
    except psutil.Error:
        return None


def process_in(where: str) -> int:
    return int(re.search(r"process (\d+)", where)[1])


def test_ray_gives_what_one_process_gives(trained, nodes, store, tmp_path, monkeypatch):
    acquire_stage(trained, "missing", "low")
    here = (CURVES / "missing-low.csv").read_bytes()
    weights = {path: path.read_bytes() for path in Path("data/models").rglob("*.safetensors")}
    monkeypatch.setenv("MINDGAP_STORE", str(tmp_path / "another"))
    monkeypatch.delenv("MINDGAP_EXECUTOR")
    assert Machine.from_environment().executor == "ray"
    train_stage(trained, "missing", "low")
    acquire_stage(trained, "missing", "low")
    assert (CURVES / "missing-low.csv").read_bytes() == here
    assert {path: path.read_bytes() for path in weights} == weights
    jobs = [[job_of(trained, query, store=one) for query in ("random", "badge")] for one in (store, None)]
    for local, remote in zip(*jobs, strict=True):
        assert len(local.record_store.read()) == 3
        assert comparable(local.record_store.read()) == comparable(remote.record_store.read())
    assert not statuses(store)


def test_nothing_of_a_credentialed_dataset_gets_into_ray(trained, store, monkeypatch):
    job = job_of(trained, "random", store=store)
    job = replace(job, run=replace(job.run, cell=replace(job.run.cell, dataset="mimic")))
    monkeypatch.setattr(cluster, "cluster", None)  # nothing begins or joins one
    with pytest.raises(ClusterError, match="mimic is credentialed, and Ray may write it"):
        execute([job], RAY, "acquire mimic-low")


def test_without_a_cluster_ray_begins_here_and_leaves_nothing(project, tmp_path):
    params_in(project)
    env = FREE_OF_RAY | {"MINDGAP_EXECUTOR": "ray", "MINDGAP_WORKERS": "2", "HOME": str(tmp_path)}
    env["MINDGAP_STORE"] = os.environ["MINDGAP_STORE"]
    shown = subprocess.run(
        [*CLI, "train", "missing", "low"], env=env, capture_output=True, text=True, timeout=90
    )
    assert shown.returncode == 0, shown.stderr
    assert len(list(Path("data/models/missing-low").glob("*.safetensors"))) == 2
    assert not (tmp_path / ".ray").exists()
    ours = [p for p in psutil.process_iter() if home_of(p) == str(tmp_path)]
    assert not psutil.wait_procs(ours, timeout=10)[1]


def test_a_cluster_that_does_not_answer_is_named(project, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    message = r"no Ray cluster answers at RAY_ADDRESS=127\.0\.0\.1:1 "
    with pytest.raises(ClusterError, match=message), cluster.cluster(RAY):
        pass


def test_without_ray_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"pip install -e '\.\[ray\]'"), cluster.cluster(RAY):
        pass


# From here on this process stays joined.


def test_a_killed_worker_loses_no_round_and_repeats_none(trained, joined, capsys):
    jobs = [job_of(trained, "slow", seconds=1.0), job_of(trained, "random")]
    before = {}

    def kill(where):
        before.update(files_of(jobs[0]))
        os.kill(process_in(where), signal.SIGKILL)

    killer = when(lambda: place_of(jobs[0].store, "slow", done=1), kill)
    execute(jobs, RAY, "acquire")
    killer.join()
    assert list(before) == ["round_000.json"]
    after = files_of(jobs[0])
    assert before.items() <= after.items()
    assert len(after) == len(files_of(jobs[1])) == 3
    line = (
        r"missing-low-slow-moddrop-0: .*, process \d+ was lost \(The worker died .*\); it goes on at round 1"
    )
    out = capsys.readouterr().out
    assert len(re.findall(line, out)) == 1
    assert "(raylet)" not in out


def test_the_runs_of_one_task_are_those_of_their_own_and_are_lost_together(
    trained, joined, store, monkeypatch, capsys
):
    """As on a GPU that runs share: two a task, on the CPU for once. One task is killed."""
    monkeypatch.setattr(cluster.Cluster, "_together", 2)
    jobs = [job_of(trained, "badge"), job_of(trained, "slow", seconds=1.0), job_of(trained, "random")]

    def kill(where):
        os.kill(process_in(where), signal.SIGKILL)

    killer = when(lambda: place_of(jobs[1].store, "slow", done=1), kill)
    execute(jobs, RAY, "acquire")
    killer.join()
    assert [job.finished_rounds for job in jobs] == [3, 3, 3]
    lost = re.findall(r"missing-low-(\w+)-moddrop-0: .* was lost .*; it goes on at", capsys.readouterr().out)
    assert "slow" in lost
    assert "random" not in lost
    monkeypatch.setenv("MINDGAP_EXECUTOR", "local")
    alone = [job_of(trained, query, store=store) for query in ("badge", "random")]
    execute(alone, HERE, "acquire")
    for here, there in zip(alone, jobs[::2], strict=True):
        assert comparable(here.record_store.read()) == comparable(there.record_store.read())


def test_a_run_that_kills_every_worker_is_told_and_the_others_are_kept(trained, joined):
    jobs = [job_of(trained, "slow", seconds=20.0), job_of(trained, "failing"), job_of(trained, "random")]
    over = threading.Event()

    def kill():
        while not over.wait(0.1):
            if where := place_of(jobs[0].store, "slow", done=0):
                psutil.Process(process_in(where)).kill()
                while place_of(jobs[0].store, "slow", done=0) == where and not over.wait(0.1):
                    pass

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(SweepError) as caught:
        execute(jobs, RAY, "acquire")
    over.set()
    killer.join()
    text = str(caught.value)
    assert text.startswith("2 of 3 runs failed; the others are finished and kept")
    assert "missing-low-slow-moddrop-0: lost 3 times, last: " in text
    assert "missing-low-failing-moddrop-0: query method 'failing' failed with" in text
    assert "ZeroDivisionError: as it must" in text
    assert jobs[2].finished_rounds == 3


def test_a_killed_driver_leaves_what_is_finished(trained, joined, store, monkeypatch, capfd):
    acquire_stage(trained, "missing", "low")
    whole = (CURVES / "missing-low.csv").read_bytes()
    for path in store.glob("*/round_*.json"):
        path.unlink()
    monkeypatch.delenv("MINDGAP_EXECUTOR")
    train_stage(trained, "missing", "low")
    driver = subprocess.Popen([*CLI, "acquire", "missing", "low"], stdout=subprocess.DEVNULL)
    begun = when(lambda: len(list(store.glob("*/round_001.json"))) >= 1, lambda _: driver.kill())
    assert driver.wait(60) == -signal.SIGKILL
    begun.join()
    kept = {path: path.read_bytes() for path in store.glob("*/round_*.json")}
    left = statuses(store).values()
    assert [status.died for status in left] == [True]
    capfd.readouterr()
    acquire_stage(trained, "missing", "low")
    # The kill may come when a run has just ended and no other has a round.
    told = re.search(r"acquire missing-low: 4 runs, (\d) finished before, (\d) begun", capfd.readouterr().out)
    assert 1 <= int(told[1]) + int(told[2]) <= 4
    assert kept.items() <= {path: path.read_bytes() for path in store.glob("*/round_*.json")}.items()
    assert (CURVES / "missing-low.csv").read_bytes() == whole
    assert not statuses(store)


def test_a_run_too_large_for_its_gpu_is_repeated_alone_in_smaller_passes(trained, joined, capsys):
    jobs = [job_of(trained, "hungry", most=64), job_of(trained, "random")]
    execute(jobs, RAY, "acquire")
    assert [job.finished_rounds for job in jobs] == [3, 3]
    told = r"GPU memory exhausted at round 0 .* passes (\d+) times smaller"
    assert re.findall(told, capsys.readouterr().out) == ["4", "16"]


def test_runs_of_a_node_that_leaves_go_on_elsewhere(trained, joined, capsys):
    node = joined.add_node(num_cpus=1)
    jobs = [job_of(trained, "slow", seed, seconds=1.5) for seed in (0, 1)]
    jobs.append(job_of(trained, "slower", seconds=1.5))
    remover = when(
        lambda: all(job.finished_rounds for job in jobs),
        lambda _: joined.remove_node(node, allow_graceful=False),
    )
    execute(jobs, RAY, "acquire")
    remover.join()
    assert [job.finished_rounds for job in jobs] == [3, 3, 3]
    out = capsys.readouterr().out
    line = r"was lost \(Task failed because the node .*\); it goes on at round [12]"
    assert len(re.findall(line, out)) == 1, out
    assert "Last 20 lines" not in out


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (("cuda",), "MINDGAP_DEVICES is 'cuda', but no node of the Ray cluster has a GPU"),
        (("cuda:0",), "MINDGAP_DEVICES is 'cuda:0', but no node of the Ray cluster has a GPU"),
        (("tpu",), "MINDGAP_DEVICES is 'tpu', but Ray chooses the device of a run: make it cuda or cpu"),
    ],
)
def test_a_gpu_that_the_cluster_has_not_is_an_error(trained, joined, devices, message):
    with pytest.raises(ClusterError, match=message):
        execute([job_of(trained, "random")], Machine(None, devices, "ray"), "acquire")


def test_a_node_with_another_version_is_named(trained, joined, monkeypatch):
    other = {**cluster.node_identity(), "torch": "1.0"}
    monkeypatch.setattr(cluster, "node_identity", lambda: other)
    job = job_of(trained, "random")
    message = r"node \S+ has torch \S+, not 1\.0 as the driver: install the same"
    with pytest.raises(ClusterError, match=message):
        execute([job], RAY, "acquire")
    assert job.finished_rounds == 0


@pytest.mark.parametrize(
    ("environment", "executor"),
    [
        ({}, "local"),
        ({"RAY_ADDRESS": "auto"}, "ray"),
        ({"RAY_ADDRESS": "auto", "MINDGAP_EXECUTOR": "local"}, "local"),
        ({"MINDGAP_EXECUTOR": "ray"}, "ray"),
    ],
)
def test_the_environment_chooses_the_executor(monkeypatch, environment, executor):
    for name in ("RAY_ADDRESS", "MINDGAP_EXECUTOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Machine.from_environment().executor == executor


def test_packed_arrays_come_back_without_a_copy(project):
    from mindgap.data.dataset import load_dataset

    dataset = load_dataset(Path("data/prepared/missing"))
    data, buffers = cluster.pack(cluster.mapped(Path("data/prepared/missing")))
    for buffer in buffers:
        buffer.flags.writeable = False
    found = cluster.tensors(cluster.unpack((data, buffers)))
    assert found.digest == dataset.digest
    for split in ("train", "test"):
        mine, other = getattr(found, split), getattr(dataset, split)
        assert all((mine.x[name] == other.x[name]).all() for name in other.x)
        assert (mine.present_NM == other.present_NM).all()
        assert (mine.y_N == other.y_N).all()
    assert found.train.x["rare"].data_ptr() in {buffer.ctypes.data for buffer in buffers}
    assert len(data) < 10_000


def test_the_slurm_script_is_bash():
    script = Path(__file__).parents[1] / "cluster" / "mindgap.sbatch"
    subprocess.run(["bash", "-n", str(script)], check=True)
