"""The kernels of a GPU, on tensors of the host: the picks of the CPU's kernels, and nothing that waits."""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from brute_force import brute_k_center, brute_k_means_pp, clusters, confident, rng
from mindgap.base import gpu
from mindgap.parts.query import kernels, resident
from mindgap.parts.query.badge import residuals
from mindgap.parts.query.resident import ROW, ResidentDraws, ResidentProducts

SHAPES = [(400, 5, 16), (150, 100, 8), (ROW + 1, 2, 64), (1, 4, 3)]


def vectors(n, classes, width, case):
    generator = rng(n)
    sharpness = 300.0 if case == "saturated" else 3.0
    r = residuals(confident(n, classes, generator, sharpness))
    h = torch.randn(n, width, generator=generator).relu()
    if case == "90 % duplicates":
        first = torch.arange(n) % max(1, n // 10)
        r, h = r[first], h[first]
    if case == "half without residual":
        r[::2] = 0
    return r, h


@pytest.mark.parametrize(("n", "classes", "width"), SHAPES)
@pytest.mark.parametrize("case", ["plain", "90 % duplicates", "half without residual", "saturated"])
def test_k_means_pp_picks_what_the_cpu_and_written_out_vectors_pick(n, classes, width, case):
    r, h = vectors(n, classes, width, case)
    for picks in {1, -(-n // 3), n}:
        got = resident.k_means_pp(r, h, picks, rng(1)).tolist()
        assert got == kernels.k_means_pp(r, h, picks, rng(1)).tolist()
        if picks < n or n < 300:
            assert got == brute_k_means_pp(r, h, picks, rng(1))


@pytest.mark.parametrize("labelled", [0, 1, 150])
@pytest.mark.parametrize(("n", "classes", "width"), SHAPES)
@pytest.mark.parametrize("case", ["plain", "90 % duplicates", "clusters"])
def test_k_center_picks_what_the_cpu_and_brute_force_pick(n, classes, width, case, labelled, monkeypatch):
    x = clusters(n + labelled, width, rng(n)) if case == "clusters" else None
    if x is None:
        x = vectors(n + labelled, classes, width, case)[1]
    monkeypatch.setattr(resident, "BLOCK", 64 * n)  # three passes over 150
    for picks in {1, -(-n // 3), n}:
        got = resident.k_center_greedy(x[:n], x[n:], picks, rng(5)).tolist()
        assert got == kernels.k_center_greedy(x[:n], x[n:], picks, rng(5)).tolist()
        if picks < n or n < 300:
            assert got == brute_k_center(x[:n], x[n:], picks, rng(5))


def test_residuals_whose_products_underflow_in_float32():
    r, h = vectors(200, 5, 6, "plain")
    got = resident.k_means_pp(r * 1e-25, h, 150, rng(1)).tolist()
    assert got == brute_k_means_pp(r * 1e-25, h, 150, rng(1))


@pytest.mark.parametrize("n", [1, ROW - 1, ROW, ROW + 1, 5 * ROW + 3])
def test_sampling_takes_what_the_cpu_takes(n):
    weights = torch.rand(n, generator=rng(n)) * (torch.arange(n) % 3 > 0)
    for picks in (0, n // 2, n):
        got = resident.sample_proportional(weights, picks, rng(7))
        assert got.tolist() == kernels.sample_proportional(weights, picks, rng(7)).tolist()


@pytest.mark.parametrize("error", [1e-9, -1e-9])
def test_sums_that_do_not_rise_everywhere_draw_no_weight_of_zero_and_nothing_twice(error):
    # a GPU rounds sums of different length in different orders: here row sums are off by far more than that
    weights = torch.zeros(4 * ROW, dtype=torch.float64)
    weights[::5] = torch.rand(len(weights[::5]), generator=rng(0), dtype=torch.float64)
    positive = int((weights > 0).sum())
    draws = ResidentDraws(len(weights), len(weights), rng(1), weights.device)
    draws.before_RR[1::2] *= 1 + error
    draws.uniform_K[::2] = 1.0  # beyond the last sum
    for _ in range(len(weights)):
        draws.draw(weights)
    picks = draws.result()
    assert len(picks.unique()) == len(weights)
    assert (weights[picks[:positive]] > 0).all()


def test_distances_that_differ_by_rounding_are_a_tie():
    x = torch.stack([torch.randperm(50, generator=rng(s)) for s in range(200)]) + 0.1
    origin = torch.zeros(1, 50)
    assert (
        len(((x.double() - origin) ** 2 / 3).cumsum(1)[:, -1].unique()) > 1
    )  # sums of other orders do differ
    first = [int(resident.k_center_greedy(x, origin, 1, rng(s))) for s in range(20)]
    assert first == [int(torch.randperm(200, generator=rng(s)).argmin()) for s in range(20)]


def test_near_duplicates_are_told_apart_down_to_the_stated_share():
    r, h = torch.ones(2, 1), torch.full((2, 100), 3.0)
    h[1, 0] += 1e-4
    points = ResidentProducts(r, h)
    assert points.distance2(points)[0, 1].item() == pytest.approx(1e-8, rel=1e-2)
    assert points.distance2(points).diagonal().tolist() == [0, 0]
    h[1, 0] = 3.0 + 2e-6
    assert (points := ResidentProducts(r, h)).distance2(points)[0, 1].item() == 0


# What may stand in a recording ----------------------------------------------------------------------------


class OnDevice(TorchDispatchMode):
    """Counts the kernels, and raises for a result that is not on the device."""

    NO_KERNEL = ("prim.", "view", "slice", "select.", "unsqueeze", "alias", "expand", "detach", "t.")

    def __init__(self):
        super().__init__()
        self.launches = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        name = str(op).removeprefix("aten.")
        if isinstance(out, torch.Tensor):
            assert out.device.type == "cuda", f"{name} is on {out.device}"
        if not name.startswith(self.NO_KERNEL):
            self.launches.append(name)
        return out


@pytest.fixture
def fake_gpu(monkeypatch):
    """Tensors without values on a GPU that is not there: whatever asks for a value raises."""
    monkeypatch.setattr(resident, "send", lambda x, device: x.to(device))  # has no pinned memory
    with FakeTensorMode():
        yield torch.device("cuda")


def steps(device):
    r, h = torch.rand(3000, 7, device=device), torch.rand(3000, 20, device=device)
    points = ResidentProducts(r, h)
    nearest = torch.rand(3000, dtype=torch.float64, device=device)
    draws = ResidentDraws(3000, 10, rng(), device)
    return {
        "k_means_pp": lambda: points.lower(nearest, points[draws.draw(nearest)]),
        "k_center": lambda: points.lower(nearest, points[draws.largest(nearest, points.square_N)]),
        "sample_proportional": lambda: draws.draw(nearest),
        "first pass": lambda: points.lower(nearest, points[:50]),
    }


@pytest.mark.parametrize("step", ["k_means_pp", "k_center", "sample_proportional", "first pass"])
def test_a_step_asks_for_no_value_and_stays_on_the_device(step, fake_gpu):
    call = steps(fake_gpu)[step]
    with OnDevice() as seen:
        call()
    if step == "k_means_pp":
        assert len(seen.launches) == 26, " ".join(seen.launches)  # as ResidentProducts says
    with pytest.raises(DataDependentOutputException):
        bool(torch.ones(1, device=fake_gpu) > 0)
    with pytest.raises(AssertionError, match="is on cpu"), OnDevice():
        torch.ones(1, device=fake_gpu).cpu()


def test_whole_kernels_ask_for_no_value(fake_gpu, monkeypatch):
    monkeypatch.setattr(resident, "repeat", lambda step, times, device: [step() for _ in range(times)])
    r, h = torch.rand(3000, 7, device=fake_gpu), torch.rand(3000, 20, device=fake_gpu)
    assert resident.k_means_pp(r, h, 5, rng()).shape == (5,)
    assert resident.k_center_greedy(h, h[:700], 5, rng()).shape == (5,)
    assert resident.k_center_greedy(h, h[:0], 5, rng()).shape == (5,)
    assert resident.sample_proportional(h[:, 0], 5, rng()).shape == (5,)


# On a GPU -------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("case", ["plain", "90 % duplicates", "half without residual", "saturated"])
def test_k_means_pp_picks_the_same_on_a_gpu(case, recorded):
    r, h = vectors(3000, 101, 64, case)
    want = kernels.k_means_pp(r, h, 1000, rng(2))
    with gpu.graphs(recorded):
        assert torch.equal(kernels.k_means_pp(r.cuda(), h.cuda(), 1000, rng(2)).cpu(), want)


@pytest.mark.gpu
@pytest.mark.parametrize("labelled", [0, 900])
@pytest.mark.parametrize("case", ["plain", "90 % duplicates", "clusters"])
def test_k_center_picks_the_same_on_a_gpu(case, labelled):
    x = clusters(3000, 64, rng(1)) if case == "clusters" else vectors(3000, 5, 64, case)[1]
    pool, centres = x[labelled:], x[:labelled]
    want = kernels.k_center_greedy(pool, centres, 1000, rng(2))
    assert torch.equal(kernels.k_center_greedy(pool.cuda(), centres.cuda(), 1000, rng(2)).cpu(), want)


@pytest.mark.gpu
def test_a_gpu_does_not_wait_between_picks():
    r, h = (x.cuda() for x in vectors(3000, 5, 64, "plain"))
    with gpu.nobody_waits(), gpu.graphs(False):  # making a recording does wait, once
        resident.k_means_pp(r, h, 50, rng())
        resident.k_center_greedy(h, h[:100], 50, rng())
