"""What ties the modalities of a sample together: the mechanics shared by all rendered datasets.

A label is the tuple of its factors' values; a factor is one feature that some modalities carry, with one
value in all of them. Everything else is drawn independently. Classes and ceilings follow from that and are
not stated twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mindgap.data.draws import balanced_labels
from mindgap.data.presence import absence_rates, subset_name, subsets
from mindgap.data.quintfeatures.images import ALL, FEATURES, LEVELS, VALUES, Style, styles_of

COLORS_OF_AN_IMAGE = ("fg_color", "bg_color")
FG_COLOR, BG_COLOR = map(FEATURES.index, COLORS_OF_AN_IMAGE)


@dataclass(frozen=True)
class Factor:
    """One feature of the label, and the modalities whose images show it."""

    feature: str
    carriers: tuple[str, ...]


@dataclass(frozen=True)
class Pairing:
    """A dataset of tied QuintFeatures images. `absence` holds for training; the test set is complete.

    `label_values`: a feature of the label takes the first so many of its ten values; all else has its own.
    `style`: what images of a modality, or of `all`, have otherwise than the common style.
    """

    modalities: tuple[str, ...]
    weak: str | None
    label: tuple[Factor, ...]
    absence: Mapping[str, float] = field(default_factory=dict)
    label_values: int = LEVELS
    style: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self):
        absence_rates(self.modalities, self.absence)
        if ALL in self.modalities:
            raise ValueError(f"a modality cannot be called {ALL!r}, which names every one: call it otherwise")
        for name in sorted(set(self.style) - {ALL, *self.modalities}):
            raise ValueError(f"style names {name!r}; known: {', '.join((ALL, *self.modalities))}")
        if self.label_values not in range(2, LEVELS + 1):
            raise ValueError(f"label_values is {self.label_values!r}: make it a whole number in 2..{LEVELS}")
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
        return self.label_values ** len(self.label)

    def styles(self, common: Style) -> dict[str, Style]:
        """The style of each modality's images; a ValueError for what cannot be."""
        return styles_of(common, self.style, self.modalities)

    @property
    def label_features(self) -> list[dict]:
        return [{"feature": factor.feature, "modalities": list(factor.carriers)} for factor in self.label]

    @property
    def class_names(self) -> list[str]:
        values = factor_values(np.arange(self.num_classes), len(self.label), self.label_values)
        names = [VALUES[factor.feature] for factor in self.label]
        return ["/".join(name[v] for name, v in zip(names, row, strict=True)) for row in values]

    @property
    def ceilings(self) -> dict[str, float]:
        """Best balanced accuracy per subset of modalities: a factor that no member shows must be guessed."""
        return {subset_name(s, self.modalities): self.ceiling(s) for s in subsets(self.modalities)}

    def ceiling(self, subset: Iterable[str]) -> float:
        subset = set(subset)
        hidden = sum(subset.isdisjoint(factor.carriers) for factor in self.label)
        return 1 / self.label_values**hidden


def factor_values(label_N: np.ndarray, factors: int, values: int = LEVELS) -> np.ndarray:
    """The factors' values (N x factors) behind class ids; the first factor varies slowest."""
    return np.stack(np.unravel_index(label_N, (values,) * factors), axis=1)


def draw_latents(
    pairing: Pairing, size: int, rng: np.random.Generator, style: Style | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Feature ids (int8, N x M x 5, as in FEATURES) and class ids (int64, N), in the common `style`.

    fg_color and bg_color differ unless the style allows it: the one that carries no label gives way.
    """
    styles = list(pairing.styles(style or Style()).values())
    label_N = balanced_labels(size, pairing.num_classes, rng)
    allowed = ([style.allowed(feature) for style in styles] for feature in FEATURES)
    features_NMF = np.stack([_free_values(ids_M, size, rng) for ids_M in allowed], axis=2)
    values = factor_values(label_N, len(pairing.label), pairing.label_values)
    fixed_background = set()
    for factor, value_N in zip(pairing.label, values.T, strict=True):
        for carrier in factor.carriers:
            m = pairing.modalities.index(carrier)
            features_NMF[:, m, FEATURES.index(factor.feature)] = value_N
            if factor.feature == "bg_color":
                fixed_background.add(m)
    for m, style in enumerate(styles):
        if not style.allow_same_color:
            fixed, free = (BG_COLOR, FG_COLOR) if m in fixed_background else (FG_COLOR, BG_COLOR)
            allowed_V = style.allowed(FEATURES[free])
            preference_NV = rng.random((size, len(allowed_V)))
            preference_NV[allowed_V == features_NMF[:, m, fixed, None]] = -1
            features_NMF[:, m, free] = allowed_V[preference_NV.argmax(axis=1)]
    return features_NMF, label_N.astype(np.int64)


def _free_values(ids_M: Sequence[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    """A feature's values (N x M) where no label fixes them, of the ids that each modality allows."""
    if all(np.array_equal(ids, ids_M[0]) for ids in ids_M):
        return rng.choice(ids_M[0], (size, len(ids_M)))
    return np.stack([rng.choice(ids, size) for ids in ids_M], axis=1)
