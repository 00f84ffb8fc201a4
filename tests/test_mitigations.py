import pytest
import torch

from mindgap.mitigations import MITIGATIONS
from mindgap.mitigations.moddrop import ModDrop


def masks(n: int, modalities: int, seed: int = 0) -> torch.Tensor:
    present = torch.rand((n, modalities), generator=torch.Generator().manual_seed(seed)) < 0.6
    present[~present.any(dim=1), 0] = True
    return present


@pytest.mark.parametrize("name", MITIGATIONS)
@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_every_mitigation_keeps_at_least_one_present_modality_and_adds_none(name, modalities):
    present = masks(500, modalities)
    kept = MITIGATIONS[name]().drop(present, torch.Generator().manual_seed(1))
    assert kept.dtype == torch.bool
    assert kept.any(dim=1).all()
    assert not (kept & ~present).any()


def test_moddrop_drops_at_its_rate_and_repairs_with_a_fair_choice():
    n, rate = 40_000, 0.5
    kept = ModDrop(rate).drop(torch.ones(n, 2, dtype=torch.bool), torch.Generator().manual_seed(0))
    both = kept.all(dim=1).double().mean().item()
    left = (kept[:, 0] & ~kept[:, 1]).double().mean().item()
    # P(complete) = (1 - q)^2 = 0.25; each single modality q (1 - q) + q^2 / 2 = 0.375
    assert both == pytest.approx(0.25, abs=0.01)
    assert left == pytest.approx(0.375, abs=0.01)


def test_moddrop_at_rate_zero_drops_nothing():
    present = masks(50, 3)
    assert torch.equal(ModDrop(0.0).drop(present, torch.Generator()), present)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_an_impossible_rate_is_refused(rate):
    with pytest.raises(ValueError, match=r"mitigation_settings\.moddrop\.rate"):
        ModDrop(rate)
