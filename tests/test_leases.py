"""Leases of cores and GPUs: what two commands of one machine have never both."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from faulty import job_of, when
from mindgap.engine.leases import Leases
from mindgap.engine.machine import Machine
from mindgap.stages.runs import train_stage
from mindgap.stages.watch import watch_stage
from small_project import params_in

CORES = sorted(os.sched_getaffinity(0))
# A process that takes all places of two CPU workers, says so, and holds them until its input ends.
HOLDER = """
import sys
from mindgap.engine.leases import Leases
from mindgap.engine.machine import Machine
leases, held = Leases(Machine(2, ("cpu",)), "acquire other"), []
while lease := leases.take():
    held.append(lease)
print(len(held), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))


@pytest.fixture
def holder():
    """Another process that has every core."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=pipe, stdout=pipe, text=True)
    assert int(process.stdout.readline()) == max(2, len(CORES))
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def taken():
    """Takes all that there is to take, until the test is over."""
    held = []

    def take(leases: Leases) -> list:
        mine = list(iter(leases.take, None))
        held.extend(mine)
        return mine

    yield take
    for lease in held:
        lease.close()


def test_two_commands_have_no_core_in_common(taken):
    one, other = (Leases(Machine(1, ("cpu",)), title) for title in ("one", "other"))
    first = taken(one)
    assert len(first) == len(CORES)
    assert other.take() is None
    assert other.holders() == f"one (process {os.getpid()})"
    first[0].close()
    (lease,) = taken(other)
    assert lease.device == "cpu"
    assert one.take() is None


def test_more_workers_than_cores_are_as_many_as_asked_for(taken):
    assert len(taken(Leases(Machine(len(CORES) + 3, ("cpu",)), "one"))) == len(CORES) + 3


def test_a_gpu_has_as_many_places_as_runs_share_it_whatever_its_number(taken, monkeypatch):
    visible = {"cuda:0": "aaaa", "cuda:1": "bbbb"}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda name: SimpleNamespace(uuid=visible[name]))
    leases = Leases(Machine(4, ("cuda:0", "cuda:1"), runs_per_gpu=2), "one")
    mine = taken(leases)
    assert [lease.device for lease in mine] == ["cuda:0", "cuda:1"] * 2
    visible["cuda:0"] = "bbbb"  # as CUDA_VISIBLE_DEVICES=1 makes it
    other = Leases(Machine(1, ("cuda:0",)), "other")
    assert other.take() is None
    mine[1].close()
    assert [lease.device for lease in taken(other)] == ["cuda:0"]
    visible["cuda:0"] = "aaaa"
    mine[0].close()
    leases.alone()
    assert leases.take() is None  # a run alone on a GPU waits for both of its places
    mine[2].close()
    assert [lease.device for lease in taken(leases)] == ["cuda:0"]


def test_ray_has_places_of_its_own():
    leases = Leases(Machine(None, ("cpu",), "ray"), "one")
    assert all(leases.take() for _ in range(100))


def test_a_command_waits_says_for_whom_and_goes_on_when_the_other_is_killed(project, holder, capsys):
    params = params_in(project, seeds=[0])
    shown = []

    def look_and_kill(_):
        time.sleep(2.5)
        watch_stage(once=True)
        shown.append(capsys.readouterr().out)
        holder.kill()

    killer = when(lambda: list((project.parent / "store").glob("status/*.json")), look_and_kill)
    begin = time.monotonic()
    train_stage(params, "missing", "low")
    killer.join()
    assert time.monotonic() - begin > 2.5
    waits = f"waiting for a core or GPU of this machine: acquire other (process {holder.pid})"
    assert shown[0].count(f"train missing-low: {waits}\n") == 1
    assert f"train missing-low: 0/1 rounds; process {os.getpid()} on " in shown[0]
    assert shown[0].rstrip().endswith(waits)


def test_runs_of_two_commands_are_no_more_at_once_than_there_are_cores(trained, taken):
    """Two sweeps of two workers each in processes of their own: the seconds of their slow runs tell."""
    script = (
        "import sys; from faulty import job_of; from mindgap.engine.machine import Machine;"
        "from mindgap.core.params import load_params; from mindgap.engine.sweep import execute;"
        "jobs = [job_of(load_params(), sys.argv[1], seed, seconds=1.0) for seed in (0, 1)];"
        "execute(jobs, Machine(2, ('cpu',)), sys.argv[1])"
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    commands = [
        subprocess.Popen([sys.executable, "-c", script, query], env=environment)
        for query in ("slow", "slower")
    ]
    held = []
    probe = Leases(Machine(2, ("cpu",)), "probe")
    while any(command.poll() is None for command in commands):
        free = taken(probe)
        held.append(max(2, len(CORES)) - len(free))
        for lease in free:
            lease.close()
        time.sleep(0.1)
    assert [command.returncode for command in commands] == [0, 0]
    assert max(held) == 2
    assert all(
        job_of(trained, query, seed, seconds=1.0).finished_rounds == 3
        for query in ("slow", "slower")
        for seed in (0, 1)
    )
