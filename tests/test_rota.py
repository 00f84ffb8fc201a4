"""Several runs in one process: a step of each in turn, and none of them notices."""

import re

import psutil
import pytest
import torch

from faulty import FAULTY, job_of, when
from mindgap.base.gpu import Engine
from mindgap.engine.jobs import Job, Rota, StoredModel, Task, loader, peak_memory
from mindgap.engine.local import Processes
from mindgap.engine.machine import Machine
from mindgap.engine.sweep import execute
from mindgap.parts.mitigations import MITIGATIONS, Mitigation
from mindgap.parts.query import METHODS

MAKING = ("seconds", "peak_memory")


@pytest.fixture
def params(trained):
    return trained


def told_by(*jobs: Job, divisor: int = 1) -> list[tuple[str, tuple]]:
    """All that runs in one process say, with the digest of each, in order."""
    rota, told = Rota("cpu", "here", loader("cpu"), StoredModel.read), []
    for job in jobs:
        rota.add(Task(job, [], divisor, "cpu"))
    while rota.busy:
        told += rota.turn()
    return told


def numbers(told, job: Job) -> list[dict]:
    """The records of a run without its times and memory."""
    records = [value for digest, (kind, value) in told if digest == job.run.digest and kind == "record"]
    return [{key: value for key, value in record.items() if key not in MAKING} for record in records]


def test_runs_in_one_process_give_what_they_give_alone(params):
    jobs = [job_of(params, query, seed) for query in ("badge", "random") for seed in (0, 1)]
    together = told_by(*jobs)
    for job in jobs:
        alone = told_by(job)
        assert numbers(together, job) == numbers(alone, job)
        assert [kind for _, (kind, _) in alone] == ["began", *["record"] * 3, "done"]
    # They took turns: all have begun before any is done.
    kinds = [kind for _, (kind, _) in together]
    assert kinds.index("done") > max(i for i, kind in enumerate(kinds) if kind == "began")
    second = [i for i, (_, (kind, value)) in enumerate(together) if kind == "record" and value["round"] == 1]
    assert max(second) < kinds.index("done")


def test_a_run_that_fails_or_exhausts_the_memory_takes_no_other_with_it(params, monkeypatch):
    good, broken = job_of(params, "random"), job_of(params, "failing")
    hungry = job_of(params, "hungry", most=3)
    for name in ("failing", "hungry"):
        monkeypatch.setitem(METHODS, name, FAULTY[name])
    told = told_by(broken, good, hungry)
    last = {digest: message for digest, message in told if message[0] in ("done", "failed", "memory")}
    assert last[good.run.digest] == ("done", None)
    assert last[broken.run.digest][0] == "failed"
    assert "ZeroDivisionError: as it must" in last[broken.run.digest][1]
    assert last[hungry.run.digest] == ("memory", "CUDA out of memory. Tried to allocate 9 GiB.")
    # The memory of all three is that of one, also where it goes on alone.
    held = [
        one["peak_memory"] for digest, (_, one) in told if digest == good.run.digest and isinstance(one, dict)
    ]
    assert 0 < max(held) <= peak_memory("cpu") // 3
    assert numbers(told, good) == numbers(told_by(good), good)


def test_the_next_run_of_a_process_is_computed_as_in_a_new_one(params):
    """What a run leaves in the engine it had changes nothing."""
    jobs = [job_of(params, query) for query in ("badge", "random")]
    rota, told = Rota("cpu", "here", loader("cpu"), StoredModel.read), []
    for job in jobs:
        rota.add(Task(job, [], 1, "cpu"))
        while rota.busy:
            told += rota.turn()
    for job in jobs:
        assert numbers(told, job) == numbers(told_by(job), job)


def test_what_a_training_has_to_say_is_passed_on(params, monkeypatch):
    """A line of a training that could not be recorded reaches whoever watches."""

    class Counting(Mitigation):
        def __init__(self, rate=0.5, form="independent"):
            self.steps = 0

        def after_step(self, step):
            self.steps += 1

    monkeypatch.setitem(MITIGATIONS, "moddrop", Counting)
    monkeypatch.setattr("mindgap.core.training.recorded_step", lambda step, state: step() or step)
    engine = Engine(torch.device("cpu"), pad=True, record=True)
    monkeypatch.setattr(Engine, "of", lambda device, divisor=1: engine)
    monkeypatch.setattr("mindgap.base.gpu._recorded_pass", lambda function, inputs: function)
    said = [value for _, (kind, value) in told_by(job_of(params, "random")) if kind == "said"]
    assert said
    assert said[0].startswith("missing-low-random-moddrop-0, round 1: Counting changes in a step what is no")


def test_the_runs_of_a_killed_process_all_go_on_and_give_the_same(params, monkeypatch, capsys):
    """On the CPU, where two share a process for once."""
    monkeypatch.setattr(Processes, "_together", lambda self, device: 2)
    kinds = ({"query": "badge"}, {"query": "slow", "seconds": 0.4})
    jobs = [job_of(params, seed=seed, **kind) for seed in (0, 1) for kind in kinds]
    alone = {job.run.digest: numbers(told_by(job), job) for job in jobs[::2]}
    killed = []

    def kill_one(_):
        (server,) = [p for p in psutil.Process().children() if "forkserver" in " ".join(p.cmdline())]
        killed.extend(server.children())
        server.children()[0].kill()

    killer = when(lambda: all(job.finished_rounds for job in jobs), kill_one)
    execute(jobs, Machine(4, ("cpu",)), "acquire")
    killer.join()
    assert len(killed) == 2
    assert [job.finished_rounds for job in jobs] == [3] * 4
    line = r"missing-low-\w+-moddrop-\d: worker [1234] died \(killed by SIGKILL\); it goes on at round \d"
    assert 1 <= len(re.findall(line, capsys.readouterr().out)) <= 2
    for job in jobs[::2]:
        stored = [{k: v for k, v in r.items() if k not in MAKING} for r in job.record_store.read()]
        assert [r["metrics"] for r in stored] == [r["metrics"] for r in alone[job.run.digest]]
