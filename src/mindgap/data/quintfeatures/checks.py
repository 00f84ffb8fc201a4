"""What the data expectations ask of a rendered dataset: duplicates, images that belie their table, leaks.

Each function returns a table as a dict of equally long columns, or counts; none imports torch.
"""

import csv
import hashlib
from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency

from mindgap.data.quintfeatures.colors import nearest_color
from mindgap.data.quintfeatures.images import (
    FEATURES,
    LEVELS,
    Style,
    bright_pixels,
    image_seed,
    render_image,
    render_layers,
    styles_of,
)
from mindgap.data.quintfeatures.pairing import COLORS_OF_AN_IMAGE, factor_values
from mindgap.data.storage import SPLITS, read_array, read_meta

# Chi-square of one pair rejects at 1e-4; a dataset has up to two hundred pairs, so a bare 1e-4 for each would
# stop one in fifty good renders. The bound is divided by the number of pairs; a real tie has p below 1e-50.
SMALLEST_P = 1e-4


def parameters(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What replaces "$name" in the suites of rendered datasets."""
    styles = meta_styles(meta).values()
    return {
        "modalities": list(meta["modalities"]),
        "last_index": max(meta["sizes"].values()) - 1,
        "last_class": meta["num_classes"] - 1,
        "colors_differ": not any(style.allow_same_color for style in styles),
        "erase_low": min(style.erase[0] for style in styles),
        "erase_high": max(style.erase[1] for style in styles),
    }


def tables(path: Path | str) -> dict[str, pd.DataFrame]:
    """The tables that the suites rendered_*.json check: attributes, images, sample, checks.

    The last two are computed from the first: they are left out where it is so wrong that only its own suite
    can say how.
    """
    meta = read_meta(path)
    attributes = pd.read_csv(Path(path) / "attributes.csv")
    made = {"attributes": attributes, "images": pd.DataFrame(image_summary(path))}
    if _is_usable(attributes, meta):
        sample = pd.DataFrame(rendered_sample(path))
        sample["decoded_color"] = sample["decoded_color"].astype(float).where(sample["decoded_color"] >= 0)
        made |= {"sample": sample, "checks": rendered_checks(path, attributes, meta)}
    return made


def meta_styles(meta: dict) -> dict[str, Style]:
    """The style of each modality's images in a rendered dataset."""
    return styles_of(Style(**meta["style"]), meta["own_style"], list(meta["modalities"]))


def read_attributes(path: Path | str) -> dict[str, np.ndarray]:
    """attributes.csv as columns: text for split and modality, float for erased_fraction, else integers."""
    with (Path(path) / "attributes.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    types = {"split": str, "modality": str, "erased_fraction": float}
    return {name: np.array(column, dtype=types.get(name, np.int64)) for name, column in columns.items()}


def image_summary(path: Path | str) -> dict[str, np.ndarray]:
    """One row for each image that is present: split, index, modality, sha256 of its pixels."""
    meta = read_meta(path)
    rows = []
    for split in SPLITS:
        present_NM = read_array(path, f"{split}.present.npy", meta, verify=False)
        for m, modality in enumerate(meta["modalities"]):
            images = read_array(path, f"{split}.{modality}.npy", meta, verify=False, mmap=True)
            for i in np.flatnonzero(present_NM[:, m]).tolist():
                rows.append((split, i, modality, hashlib.sha256(np.ascontiguousarray(images[i])).hexdigest()))
    names = ("split", "index", "modality", "sha256")
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def rendered_sample(path: Path | str, size: int = 64) -> dict[str, np.ndarray]:
    """Stored images beside their re-rendering, spread evenly over attributes.csv.

    Columns: split, index, modality, same (stored image == one rendered from its row and seed), fg_color, and
    decoded_color: the anchor nearest to the median pixel that shows only the object's bright shade, -1 where
    no pixel does.
    """
    meta, table = read_meta(path), read_attributes(path)
    styles, modalities = meta_styles(meta), list(meta["modalities"])
    chosen = np.unique(np.linspace(0, len(table["index"]) - 1, size).astype(int))
    same, decoded = [], []
    for row in chosen:
        split, modality, i = str(table["split"][row]), str(table["modality"][row]), int(table["index"][row])
        style = styles[modality]
        seed = image_seed(
            meta["root_seed"], meta["dataset"], SPLITS.index(split), i, modalities.index(modality)
        )
        features = [int(table[feature][row]) for feature in FEATURES]
        image = np.array(read_array(path, f"{split}.{modality}.npy", meta, verify=False, mmap=True)[i])
        same.append(np.array_equal(image, render_image(features, seed, style)[0]))
        bright = image[bright_pixels(render_layers(features, seed, style)[0], style.supersample)]
        decoded.append(int(nearest_color(np.median(bright, axis=0).round())) if len(bright) else -1)
    names = ("split", "index", "modality", "fg_color")
    return {name: table[name][chosen] for name in names} | {
        "decoded_color": np.array(decoded),
        "same": np.array(same),
    }


def independence_p(counts: np.ndarray) -> float:
    """p-value of the chi-square test of independence; 1 where one of the two never varies."""
    counts = counts[counts.any(axis=1)][:, counts.any(axis=0)]
    return float(chi2_contingency(counts, correction=False).pvalue)


def _is_usable(attributes: pd.DataFrame, meta: dict[str, Any]) -> bool:
    """Whether every row names an image of the arrays and features that can be drawn."""
    if not {"split", "index", "modality", *FEATURES, "erased_fraction", "label"} <= set(attributes.columns):
        return False
    sizes = attributes["split"].map(meta["sizes"])
    features = attributes[list(FEATURES)]
    return bool(
        sizes.notna().all()
        and (attributes["index"].ge(0) & attributes["index"].lt(sizes)).all()
        and attributes["modality"].isin(list(meta["modalities"])).all()
        and (features.ge(0) & features.lt(LEVELS)).all(axis=None)
    )


def rendered_checks(path: Path | str, attributes: pd.DataFrame, meta: dict[str, Any]) -> pd.DataFrame:
    """One row per statistic, named by its index: value, lower, upper."""
    rows: dict[str, tuple[float, float, float]] = {}
    pairs: dict[str, float] = {}
    for split in SPLITS:
        label_N = read_array(path, f"{split}.label.npy", meta, verify=False)
        present_NM = read_array(path, f"{split}.present.npy", meta, verify=False)
        features = _wide(attributes, split, len(label_N), meta)
        counts = np.bincount(label_N, minlength=meta["num_classes"])
        rows[f"{split}: class counts, range"] = (float(counts.max() - counts.min()), 0, 1)
        rows |= {f"{split}: {k}": v for k, v in _presence_rows(present_NM, meta, split).items()}
        rows |= {
            f"{split}: {k}": v for k, v in _label_rows(features, attributes, label_N, split, meta).items()
        }
        pairs |= {f"{split}: {k}": p for k, p in _pair_ps(features, meta).items()}
    rows |= _erased_rows(attributes, meta)
    rows |= {name: (p, SMALLEST_P / len(pairs), 1.0) for name, p in pairs.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "lower", "upper"], dtype=float)


def _wide(
    attributes: pd.DataFrame, split: str, size: int, meta: dict[str, Any]
) -> dict[tuple[str, str], np.ndarray]:
    """(modality, feature) -> values (N), -1 where the image is absent."""
    wide = {}
    for modality in meta["modalities"]:
        rows = attributes[(attributes["split"] == split) & (attributes["modality"] == modality)]
        for feature in FEATURES:
            wide[modality, feature] = np.full(size, -1)
            wide[modality, feature][rows["index"]] = rows[feature]
    return wide


def _presence_rows(
    present_NM: np.ndarray, meta: dict[str, Any], split: str
) -> dict[str, tuple[float, float, float]]:
    """Presence rates within three sigma of what absence and the keep-one repair give; no sample empty."""
    absence = [meta["absence"].get(name, 0.0) if split == "train" else 0.0 for name in meta["modalities"]]
    rows = {
        "least modalities of a sample": (float(present_NM.sum(axis=1).min()), 1.0, float(present_NM.shape[1]))
    }
    for modality, absent, present_N in zip(meta["modalities"], absence, present_NM.T, strict=True):
        rate = 1 - absent + np.prod(absence) / len(absence)
        slack = 3 * np.sqrt(rate * (1 - rate) / len(present_N))
        # Half a sample for the rounding of a share of few samples, and of 1 - q.
        slack += 0.5 / len(present_N)
        rows[f"{modality} is present"] = (float(present_N.mean()), rate - slack, rate + slack)
    return rows


def _erased_rows(attributes: pd.DataFrame, meta: dict[str, Any]) -> dict[str, tuple[float, float, float]]:
    """The least and the most that is erased in images of a modality, which may have bounds of its own."""
    rows = {}
    for modality, style in meta_styles(meta).items():
        shares = attributes.loc[attributes["modality"] == modality, "erased_fraction"]
        for which, found in (("least", shares.min()), ("most", shares.max())):
            rows[f"{modality}: {which} that is erased"] = (float(found), *style.erase)
    return rows


def _label_rows(
    features: dict[tuple[str, str], np.ndarray],
    attributes: pd.DataFrame,
    label_N: np.ndarray,
    split: str,
    meta: dict[str, Any],
) -> dict[str, tuple[float, float, float]]:
    """How many samples have another label than in the table, or than their images show: none."""
    mine = attributes[attributes["split"] == split]
    wrong = float((label_N[mine["index"]] != mine["label"]).sum())
    rows = {"labels of the table that differ from the array": (wrong, 0.0, 0.0)}
    factors = factor_values(label_N, len(meta["label_features"]), meta["label_values"]).T
    for factor, value_N in zip(meta["label_features"], factors, strict=True):
        for modality in factor["modalities"]:
            shown_N = features[modality, factor["feature"]]
            wrong = float(((shown_N >= 0) & (shown_N != value_N)).sum())
            rows[f"{modality} {factor['feature']} differs from the label"] = (wrong, 0.0, 0.0)
    return rows


def _pair_ps(features: dict[tuple[str, str], np.ndarray], meta: dict[str, Any]) -> dict[str, float]:
    """p of independence for every pair of features, within and across images, but those the label ties."""
    tied = {(factor["feature"], name) for factor in meta["label_features"] for name in factor["modalities"]}
    styles, tied_ids = meta_styles(meta), range(meta["label_values"])
    overlap = {name: _overlap(name, tied, tied_ids, styles[name]) for name in meta["modalities"]}
    ps = {}
    for (first, a), (second, b) in combinations(features, 2):
        if a == b and {(a, first), (b, second)} <= tied:
            continue
        a_N, b_N = features[first, a], features[second, b]
        both = (a_N >= 0) & (b_N >= 0)
        a_N, b_N = a_N[both], b_N[both]
        name = f"p of {first} {a} and {second} {b}"
        if first == second and (a, b) == COLORS_OF_AN_IMAGE and overlap[first]:
            # The two differ, and so depend on each other; how far they are apart must not. Where they draw
            # from lists of their own that overlap, neither is true.
            if overlap[first] < LEVELS:
                continue
            name, b_N = f"p of {first} fg_color and the distance to bg_color", (b_N - a_N) % LEVELS
        if len(a_N):
            ps[name] = independence_p(
                np.bincount(LEVELS * a_N + b_N, minlength=LEVELS**2).reshape(LEVELS, LEVELS)
            )
    return ps


def _overlap(modality: str, tied: set[tuple[str, str]], tied_ids: Iterable[int], style: Style) -> int:
    """How many colours may be an image's foreground as well as its background, though never both at once.

    `tied_ids`: those of a colour that carries the label.
    """
    if style.allow_same_color:
        return 0
    drawn = [
        set(tied_ids) if (feature, modality) in tied else set(style.allowed(feature).tolist())
        for feature in COLORS_OF_AN_IMAGE
    ]
    return len(drawn[0] & drawn[1])
