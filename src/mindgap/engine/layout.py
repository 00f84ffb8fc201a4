"""Shapes and sizes that a dataset will have, told from the parameters before it is prepared.

Sizes of Share are those of its original files; sizes of Food101 and MIMIC are estimates.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product

from mindgap.base.errors import MindGapError
from mindgap.base.modality import Modality
from mindgap.core.asked import pairing_asked, source_settings
from mindgap.core.params import Params
from mindgap.data import RENDERED, SOURCES
from mindgap.data.presence import absence_rates

LABEL = 8  # bytes


class LayoutError(MindGapError):
    """Nothing is known of a dataset before it is prepared."""


@dataclass(frozen=True)
class Layout:
    """Shapes and sizes of a dataset. `absent`: the probability that a training sample lacks each modality.

    `exact` is false where the sizes are expectations, which only the preparation replaces by counts.
    """

    modalities: Mapping[str, Modality]
    num_classes: int
    train: int
    test: int
    absent: tuple[float, ...]
    exact: bool = True

    @property
    def subsets(self) -> int:
        return 2 ** len(self.modalities) - 1

    @property
    def bytes(self) -> int:
        """Of the arrays of all samples, on disk as on a device."""
        return (self.train + self.test) * self.sample

    @property
    def sample(self) -> int:
        """Bytes of a sample's arrays, with presence and label."""
        arrays = sum(math.prod(m.shape) * m.dtype.itemsize for m in self.modalities.values())
        return arrays + len(self.modalities) + LABEL

    @property
    def largest(self) -> int:
        """Numbers of a sample of the largest modality."""
        return max(math.prod(modality.shape) for modality in self.modalities.values())


def expected_layout(params: Params, dataset: str) -> Layout:
    """What the parameters say of a dataset that is not there yet."""
    if dataset in RENDERED:
        return _rendered(params, dataset)
    settings = source_settings(params, dataset)
    if dataset not in EXPECTED:
        raise LayoutError(f"{dataset}: its shapes are known once it is prepared: `mindgap prepare {dataset}`")
    return EXPECTED[dataset](settings)


def absence_of(params: Params, dataset: str) -> tuple[float, ...]:
    """How often training samples lack each modality; what comes from outside is complete."""
    if dataset not in RENDERED:
        return (0.0,) * len(SOURCES[dataset].modalities)
    pairing = pairing_asked(params, dataset)
    return tuple(absence_rates(pairing.modalities, pairing.absence).tolist())


def _rendered(params: Params, dataset: str) -> Layout:
    pairing, render = pairing_asked(params, dataset), params.at_scale.render
    image = Modality("image", (render.image_size, render.image_size, 3))
    return Layout(
        dict.fromkeys(pairing.modalities, image),
        pairing.num_classes,
        render.train_size,
        render.test_size,
        absence_of(params, dataset),
    )


def _share(settings) -> Layout:
    images = {
        "cifar10": Modality("image", (32, 32, 3)),
        "mnist": Modality("image", (settings.digit_size, settings.digit_size, 1)),
    }
    return Layout(images, 10, settings.train_size or 50_000, settings.test_size or 9_786, (0.0, 0.0))


def _share_shortcut(settings) -> Layout:
    """Equal class counts: of all pairs those of the class with the fewest."""
    train, test = settings.train_size // 10 * 10, settings.test_size // 10 * 10
    return replace(_share(settings), train=train or 50_000, test=test or 8_920)


def _food101(settings) -> Layout:
    side, exact = settings.image_size, bool(settings.train_size and settings.test_size)
    modalities = {
        "image": Modality("image", (side, side, 3)),
        "text": Modality("tokens", (settings.max_length,)),
    }
    # All rows of the copy with titles; some images cannot be read.
    train, test = settings.train_size or 67_972, settings.test_size or 22_716
    return Layout(modalities, 101, train, test, (0.0, 0.0), exact)


def _mimic(settings) -> Layout:
    modalities = {
        "ecg": Modality("signal", (12, settings.ecg_samples)),
        "bloodlabs": Modality("table", (50 * (1 + settings.missing_flags),)),
    }
    # A guess: of 546,028 admissions two in five have labs and an ECG, those of 110,000 subjects.
    admissions = 200_000 if settings.test_subjects else 250
    test = round(admissions * (settings.test_subjects / 110_000 or settings.test_fraction))
    return Layout(modalities, 2, admissions - test, test, (0.0, 0.0), exact=False)


# Contract: a dataset's settings -> its layout. A dataset that is not here can be planned once it is prepared.
EXPECTED: dict[str, Callable[..., Layout]] = {
    "share": _share,
    "share_shortcut": _share_shortcut,
    "food101": _food101,
    "mimic": _mimic,
}


def check_size(params: Params, dataset: str, regime: str, train: int) -> None:
    """A LayoutError where a dataset has fewer training samples than its budget asks for."""
    needed, scale = params.setting(dataset, regime).budget.needed, f"scales.{params.scale}"
    if train < needed:
        raise LayoutError(
            f"{dataset} has {train:,} training samples, but {dataset}-{regime} at scale {params.scale} needs "
            f"{needed:,}: lower {scale}.budget.{dataset}.{regime}, or raise train_size in "
            f"{scale}.{'render' if dataset in RENDERED else f'prepare.{dataset}'}, and run `dvc repro`"
        )


def check_sizes(params: Params) -> None:
    """`check_size` of all datasets whose sizes follow from the parameters."""
    for dataset, regime in product(params.dataset, params.regime):
        if dataset in RENDERED or dataset in EXPECTED:
            layout = expected_layout(params, dataset)
            if layout.exact:
                check_size(params, dataset, regime, layout.train)
