"""Policies: what passes from round to round, what they are rewarded by, and what is refused."""

import json
import math
import os
import signal
from dataclasses import replace
from itertools import islice, pairwise

import pytest
import torch
from safetensors.torch import load

from faulty import job_of
from mindgap.base.settings import SettingsError
from mindgap.base.view import Metrics, Reward
from mindgap.core.loop import Run, rounds
from mindgap.core.params import Budget
from mindgap.core.records import RecordError, check_form, seal, unseal
from mindgap.data.dataset import Dataset
from mindgap.engine.jobs import Job
from mindgap.engine.machine import Machine
from mindgap.engine.sweep import SweepError, execute
from mindgap.parts.query import METHODS
from mindgap.parts.query.contract import Method, QueryError
from mindgap.parts.query.entropy import entropy
from mindgap.parts.query.policy import take_turn
from mindgap.parts.query.random_ import random
from mindgap.parts.query.select import check_settings, hyperparameters, select
from mindgap.stages.catalogue import catalogue
from mindgap.stages.runs import train_stage
from small_project import params_in
from test_loop import comparable, initial_of, run_of
from test_query import make_view

ROUNDS = 5
BUDGET = Budget(initial=8, validation=16, acquisition=6, rounds=ROUNDS)


class Arms:
    """Epsilon-greedy between Random and Entropy, by what each raised the accuracy on average."""

    ARMS = (random, entropy)

    def __init__(self, rng: torch.Generator, epsilon: float = 0.3):
        self.rng, self.epsilon = rng, epsilon
        self.gain_A, self.times_A = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
        self.arm = torch.randint(2, (), generator=rng)

    def pick(self, view, n):
        # Both kinds of generators, which no state holds.
        explore = torch.rand((), generator=self.rng) < self.epsilon or self.times_A.min() == 0
        self.arm = torch.randint(2, ()) if explore else (self.gain_A / self.times_A).argmax()
        return self.ARMS[self.arm](view, n)

    def learn(self, reward, view):
        every = "+".join(view.modalities)
        self.gain_A[self.arm] += reward.after[every].accuracy - reward.before[every].accuracy
        self.times_A[self.arm] += 1

    def state(self):
        return {"gain": self.gain_A, "times": self.times_A, "arm": self.arm}

    def load(self, state):
        self.gain_A, self.times_A, self.arm = state["gain"], state["times"], state["arm"]


@pytest.fixture(autouse=True)
def arms(monkeypatch) -> None:
    monkeypatch.setitem(METHODS, "arms", Method(Arms))


def arms_run(**changes) -> Run:
    return run_of("arms", budget=BUDGET, **changes)


def records_of(dataset: Dataset, run: Run, finished=(), upto=None) -> list[dict]:
    initial, weights = initial_of(dataset, seed=run.cell.seed)
    return list(islice(rounds(run, dataset, initial, weights, finished), upto))


# From round to round --------------------------------------------------------------------------------------


def test_a_run_that_stops_after_each_round_is_the_uninterrupted_one(make_dataset):
    dataset, run = make_dataset(), arms_run()
    whole, records = records_of(dataset, run), []
    for _ in range(ROUNDS):
        torch.rand(3)
        records += records_of(dataset, run, records, upto=1)
    assert comparable(records) == comparable(whole)
    assert [len(record["acquired_ids"]) for record in whole] == [6, 6, 6, 6, 0]
    # As many rewards as picks: that of the last one too.
    assert [int(load(record["state"])["times"].sum()) for record in whole] == [0, 1, 2, 3, 4]
    assert len({json.dumps(record["acquired_ids"]) for record in whole[:-1]}) == ROUNDS - 1


def test_what_a_policy_learnt_is_the_gain_on_the_validation_set(make_dataset):
    records = records_of(make_dataset(), arms_run())
    accuracies = [record["validation"]["left+right"]["accuracy"] for record in records]
    gain, times = [0.0, 0.0], [0, 0]
    for before, after, record in zip(accuracies, accuracies[1:], records, strict=False):
        arm = int(load(record["state"])["arm"])
        gain[arm] += after - before
        times[arm] += 1
    last = load(records[-1]["state"])
    assert last["gain"].tolist() == pytest.approx(gain)
    assert last["times"].tolist() == times
    assert any(gain)


def test_the_test_set_changes_no_pick_and_no_reward(make_dataset):
    dataset = make_dataset()
    other = replace(dataset, test=replace(dataset.test, y_N=dataset.test.y_N.roll(1)))
    one, two = comparable(records_of(dataset, arms_run())), comparable(records_of(other, arms_run()))
    assert [record.pop("metrics") for record in one] != [record.pop("metrics") for record in two]
    assert one == two


@pytest.mark.parametrize("better", [0, 1])
def test_the_arm_that_is_rewarded_is_found(better):
    """Each turn goes through the stored arrays; both arms are tried, then the better one in most turns."""
    state, reward, picked = None, None, []
    for round in range(80):
        _, state = take_turn("arms", Arms, make_view(round=round), 5, 7, state, reward)
        picked.append(int(load(state)["arm"]))
        reward = a_reward(0.5 + 0.1 * (picked[-1] == better))
    assert {*picked} == {0, 1}
    assert picked[10:].count(better) > 0.75 * 70


def a_reward(accuracy: float) -> Reward:
    before, after = (Metrics(a, a, 0.1, 1.0, 16) for a in (0.5, accuracy))
    return Reward({"m0+m1": before}, {"m0+m1": after}, 0, 14, {})


def test_torchs_own_generators_are_left_as_they_were(make_dataset):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    select("arms", make_view(), 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_policies_of_two_seeds_differ_and_those_of_two_mitigations_begin_alike(make_dataset):
    dataset = make_dataset()
    first = [
        records_of(dataset, arms_run(**of), upto=1)[0]["state"]
        for of in ({}, {"mitigation": "none"}, *({"seed": seed} for seed in range(1, 8)))
    ]
    assert load(first[0])["arm"] == load(first[1])["arm"]
    assert len({int(load(state)["arm"]) for state in first}) == 2


def test_a_network_may_learn_by_its_gradients(make_dataset, monkeypatch):
    """What a policy gradient needs (weights, momentum, what was drawn from what) are arrays too."""

    class Network(Arms):
        def __init__(self, rng):
            self.net = torch.nn.Linear(4, 1)
            self.kept = {"momentum": torch.zeros(1, 4)}

        def pick(self, view, n):
            drawn_B = self.net(view.probs_NC)[:, 0].softmax(0).multinomial(n)
            self.kept |= {"seen": view.probs_NC, "drawn": drawn_B}
            return drawn_B

        def learn(self, reward, view):
            gain = reward.before["left+right"].nll - reward.after["left+right"].nll
            log_probs_N = self.net(self.kept["seen"])[:, 0].log_softmax(0)
            (gain * log_probs_N[self.kept["drawn"]].sum()).backward()
            self.kept["momentum"] = 0.9 * self.kept["momentum"] + self.net.weight.grad
            self.net.weight.data += 0.1 * self.kept["momentum"]

        def state(self):
            return {**self.net.state_dict(), **self.kept}

        def load(self, state):
            self.net.load_state_dict({name: state[name] for name in ("weight", "bias")})
            self.kept = {name: state[name] for name in state.keys() - {"weight", "bias"}}

    monkeypatch.setitem(METHODS, "network", Method(Network))
    dataset, run = make_dataset(), run_of("network")
    whole, records = records_of(dataset, run), []
    for _ in whole:
        records += records_of(dataset, run, records, upto=1)
    assert comparable(records) == comparable(whole)
    weights = [load(record["state"])["weight"] for record in whole]
    assert all(not torch.equal(one, two) for one, two in pairwise(weights))


@pytest.mark.gpu
def test_a_policy_on_a_gpu_goes_on_bit_for_bit(make_dataset):
    dataset, run = make_dataset().to("cuda"), arms_run()
    whole, records = records_of(dataset, run), []
    for _ in range(ROUNDS):
        records += records_of(dataset, run, records, upto=1)
    assert comparable(records) == comparable(whole)


# The store ------------------------------------------------------------------------------------------------


@pytest.fixture
def job(project) -> Job:
    params = params_in(project, seeds=[0])
    train_stage(params, "missing", "low")
    return job_of(params, "arms")


def files_of(job: Job) -> dict[str, bytes]:
    folder = job.record_store.folder
    return {path.name: path.read_bytes() for path in sorted(folder.glob("round_*.safetensors"))}


def test_a_run_that_was_killed_goes_on_bit_for_bit_and_a_finished_one_is_kept(job, tmp_path, capsys):
    execute([job], Machine(1, ("cpu",)), "acquire")
    whole, files = comparable(job.result()), files_of(job)
    assert list(files) == [f"round_00{round}.safetensors" for round in range(3)]
    capsys.readouterr()
    execute([job], Machine(1, ("cpu",)), "acquire")
    assert "1 runs, 1 finished before" in capsys.readouterr().out
    for round in range(1, 3):
        again = replace(job, store=tmp_path / f"killed in round {round}")
        killed_in(round, again)
        assert again.finished_rounds == round
        execute([again], Machine(1, ("cpu",)), "acquire")
        assert comparable(again.result()) == whole
        assert files_of(again) == files


def killed_in(round: int, job: Job) -> None:
    """A process that executes a job until it learns in a round."""

    class Killer(Arms):
        def learn(self, reward, view):
            if view.round == round:
                os.kill(os.getpid(), signal.SIGKILL)
            super().learn(reward, view)

    if (child := os.fork()) == 0:
        METHODS["arms"] = Method(Killer)
        execute([job], Machine(1, ("cpu",)), "acquire")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def resealed(path, **changes) -> None:
    body = {key: value for key, value in {**unseal(path), **changes}.items() if value is not None}
    path.write_text(json.dumps(seal(body)))


STATE_DAMAGE = {
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x7f"),
    "gone": lambda path: path.unlink(),
    "of another round": lambda path: path.write_bytes(path.with_stem("round_000").read_bytes()),
    "no state": lambda path: resealed(path.with_suffix(".json"), state=None),
    "no metrics": lambda path: resealed(path.with_suffix(".json"), validation=None),
    "metrics of another form": lambda path: resealed(path.with_suffix(".json"), validation={"rare": {}}),
}


def test_a_damaged_state_is_computed_again(job, capsys):
    execute([job], Machine(1, ("cpu",)), "acquire")
    whole, files = comparable(job.result()), files_of(job)
    for damage in STATE_DAMAGE.values():
        damage(job.record_store.folder / "round_001.safetensors")
        with pytest.raises(RecordError, match="the store lost 2 of 3 rounds"):
            job.result()
        execute([job], Machine(1, ("cpu",)), "acquire")
        assert "round_001.json is no record of this run" in capsys.readouterr().out
        assert comparable(job.result()) == whole
        assert files_of(job) == files


def test_records_with_the_memory_of_older_methods_stay_readable(job):
    execute([job], Machine(1, ("cpu",)), "acquire")
    check_form({**job.result()[0], "memory": {"seen": [1, 2]}})


def test_a_policy_that_fails_to_learn_stops_its_run_alone_and_keeps_its_rounds(job, monkeypatch):
    def failing(self, reward, view):
        raise ZeroDivisionError("as it must")

    with monkeypatch.context() as patch:
        patch.setattr(Arms, "learn", failing)
        message = (
            r"(?s)1 of 1 runs failed.*-arms-moddrop-0: .*'arms' failed with ZeroDivisionError: as it must"
        )
        with pytest.raises(SweepError, match=message):
            execute([job], Machine(1, ("cpu",)), "acquire")
    assert job.finished_rounds == 1
    execute([job], Machine(1, ("cpu",)), "acquire")
    assert job.finished_rounds == 3


# What is refused ------------------------------------------------------------------------------------------


def changed(**attributes) -> Method:
    return Method(type("Changed", (Arms,), attributes))


def state_of(name, value) -> dict:
    """A state that has a value beside what it should have."""
    return {"state": lambda self: {**Arms.state(self), name: value}}


REFUSED = {
    "too few picks": (
        {"pick": lambda self, view, n: torch.arange(n - 1)},
        r"'changed' returned 4 positions, 5 were",
    ),
    "no tensor picked": ({"pick": lambda self, view, n: [1, 2]}, r"'changed' returned list; return a 1-d"),
    "NaN": (state_of("loss", torch.tensor([1.0, math.nan])), r"'loss' of its state is not finite in 1 of 2 "),
    "infinity": (state_of("loss", torch.tensor(-math.inf)), r"'loss' .* in 1 of 1 values in round 1; let it"),
    "a number": (state_of("step", 3), r"'step' of its state is int; return names and dense tensors"),
    "a number for a name": (state_of(3, torch.ones(1)), r"'changed': 3 of its state is Tensor; return names"),
    "a sparse tensor": (state_of("rows", torch.eye(3).to_sparse()), r"'rows' .*dense tensors"),
    "numbers that cannot be stored": (
        state_of("z", torch.zeros(2, dtype=torch.complex128)),
        r"its state cannot be stored .*use plain numbers",
    ),
    "no state": ({"state": lambda self: None}, r"state\(\) gave NoneType; return a dict"),
    "nothing loaded": (
        {"load": lambda self, state: None, "state": lambda self: {"arm": self.arm, "one": torch.rand(1)}},
        r"'(arm|one)' of its state has other values after load\(state\); let load put back all",
    ),
    "another shape": (
        {"load": lambda self, state: vars(self).update(gain_A=torch.zeros(3))},
        r"'gain' of its state is torch.float32 of shape \(3,\) after load\(state\), and was torch.float64 of "
        r"shape \(2,\); let load",
    ),
    "an array that load does not make": (
        {
            "load": lambda self, state: vars(self).update(loaded=True),
            "state": lambda self: {} if hasattr(self, "loaded") else Arms.state(self),
        },
        r"'gain' of its state is missing after load\(state\), and was torch.float64 of shape \(2,\); let ",
    ),
}


@pytest.mark.parametrize(("attributes", "message"), REFUSED.values(), ids=REFUSED)
def test_a_policy_that_breaks_the_contract_is_named_with_its_fault(monkeypatch, attributes, message):
    monkeypatch.setitem(METHODS, "changed", changed(**attributes))
    with pytest.raises(QueryError, match=message):
        select("changed", make_view(), 5)


def test_a_class_that_is_no_policy_is_refused_where_it_is_listed():
    class Half:
        def pick(self, view, n): ...

    with pytest.raises(
        QueryError, match=r"Half is a class without learn, state, load: a policy has pick, le"
    ):
        Method(Half)


def test_settings_of_a_policy_are_those_behind_its_generator():
    assert hyperparameters("arms") == {"epsilon": 0.3}
    assert check_settings("arms", {"epsilon": 1}) == {"epsilon": 1.0}
    with pytest.raises(SettingsError, match=r"query_settings\.arms\.eps is unknown; known: epsilon"):
        check_settings("arms", {"eps": 0.1})
    (line,) = [line for line in catalogue()["query (settings: query_settings.<name>)"] if line[0] == "arms"]
    assert line[2] == "epsilon=0.3"
