"""What ties the modalities of a sample together: the mechanics shared by all rendered datasets.

A label is the tuple of its factors' values; a factor is one feature that some modalities carry, with one
value in all of them. Everything else is drawn independently. Ceilings follow from that and are not stated
twice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from mindgap.data.draws import balanced_labels
from mindgap.data.presence import absence_rates, subset_name, subsets
from mindgap.data.quintfeatures.images import FEATURES, LEVELS, VALUES, Style

COLORS_OF_AN_IMAGE = ("fg_color", "bg_color")
FG_COLOR, BG_COLOR = map(FEATURES.index, COLORS_OF_AN_IMAGE)


@dataclass(frozen=True)
class Factor:
    """One feature of the label, and the modalities whose images show it."""

    feature: str
    carriers: tuple[str, ...]


@dataclass(frozen=True)
class Pairing:
    """A dataset of tied QuintFeatures images. `absence` holds for training; the test set is complete."""

    modalities: tuple[str, ...]
    weak: str | None
    label: tuple[Factor, ...]
    absence: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        absence_rates(self.modalities, self.absence)
        tied = [(carrier, factor.feature) for factor in self.label for carrier in factor.carriers]
        named = [self.weak] if self.weak else []
        for name in (*named, *(carrier for carrier, _ in tied)):
            if name not in self.modalities:
                raise ValueError(f"unknown modality {name!r}; they are {', '.join(self.modalities)}")
        for _, feature in tied:
            if feature not in FEATURES:
                raise ValueError(f"unknown feature {feature!r}; the features are {', '.join(FEATURES)}")
        if len(set(tied)) < len(tied) or not all(factor.carriers for factor in self.label) or not tied:
            raise ValueError("a label needs factors, each with carriers, and no image feature may serve two")
        if any({(name, "fg_color"), (name, "bg_color")} <= set(tied) for name in self.modalities):
            raise ValueError("one image cannot carry the label in fg_color and bg_color: they must differ")
        for factor in self.label:
            if factor.feature in COLORS_OF_AN_IMAGE and len(factor.carriers) > 1:
                sharing = " and ".join(factor.carriers)
                raise ValueError(
                    f"the label cannot be a {factor.feature} that {sharing} share: the two colours of an "
                    "image differ, so the other colour of each would tell of this one in the rest; take "
                    "fg_shape, fg_texture or bg_texture, or let one modality alone carry it"
                )

    @property
    def num_classes(self) -> int:
        return LEVELS ** len(self.label)

    @property
    def label_features(self) -> list[dict]:
        return [{"feature": factor.feature, "modalities": list(factor.carriers)} for factor in self.label]

    @property
    def class_names(self) -> list[str]:
        values = factor_values(np.arange(self.num_classes), len(self.label))
        names = [VALUES[factor.feature] for factor in self.label]
        return ["/".join(name[v] for name, v in zip(names, row, strict=True)) for row in values]

    @property
    def ceilings(self) -> dict[str, float]:
        """Best balanced accuracy per subset of modalities: a factor that no member shows must be guessed."""
        return {subset_name(s, self.modalities): self.ceiling(s) for s in subsets(self.modalities)}

    def ceiling(self, subset: Iterable[str]) -> float:
        subset = set(subset)
        hidden = sum(subset.isdisjoint(factor.carriers) for factor in self.label)
        return 1 / LEVELS**hidden


def factor_values(label_N: np.ndarray, factors: int) -> np.ndarray:
    """The factors' values (N x factors) behind class ids; the first factor varies slowest."""
    return np.stack(np.unravel_index(label_N, (LEVELS,) * factors), axis=1)


def draw_latents(
    pairing: Pairing, size: int, rng: np.random.Generator, style: Style | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Feature ids (int8, N x M x 5, as in FEATURES) and class ids (int64, N).

    fg_color and bg_color differ unless the style allows it: the one that carries no label gives way.
    """
    style = style or Style()
    label_N = balanced_labels(size, pairing.num_classes, rng)
    shape = (size, len(pairing.modalities))
    features_NMF = np.stack([rng.choice(style.allowed(feature), shape) for feature in FEATURES], axis=2)
    values = factor_values(label_N, len(pairing.label))
    fixed_background = set()
    for factor, value_N in zip(pairing.label, values.T, strict=True):
        for carrier in factor.carriers:
            m = pairing.modalities.index(carrier)
            features_NMF[:, m, FEATURES.index(factor.feature)] = value_N
            if factor.feature == "bg_color":
                fixed_background.add(m)
    if not style.allow_same_color:
        for m in range(len(pairing.modalities)):
            fixed, free = (BG_COLOR, FG_COLOR) if m in fixed_background else (FG_COLOR, BG_COLOR)
            allowed_V = style.allowed(FEATURES[free])
            preference_NV = rng.random((size, len(allowed_V)))
            preference_NV[allowed_V == features_NMF[:, m, fixed, None]] = -1
            features_NMF[:, m, free] = allowed_V[preference_NV.argmax(axis=1)]
    return features_NMF, label_N.astype(np.int64)
