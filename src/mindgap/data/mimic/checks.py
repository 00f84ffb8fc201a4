"""What the suites mimic_*.json check of a prepared dataset: its tables, and what replaces "$name" in them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mindgap.data.errors import DataError
from mindgap.data.mimic.ecg import LEADS
from mindgap.data.mimic.extract import lab_columns
from mindgap.data.mimic.labs import LABS
from mindgap.data.mimic.scaling import hash_of
from mindgap.data.mimic.settings import Settings
from mindgap.data.storage import SPLITS, mend, read_array, read_meta

BLOCK = 256  # recordings looked at in one go
LEADS_SAMPLE = 1000  # recordings of which the leads are compared
# What Einthoven's and Goldberger's leads are, by definition, of I and II; up to a factor.
DERIVED = {"III": (-1, 1), "aVR": (-1, -1), "aVL": (1, -0.5), "aVF": (-0.5, 1)}


def tables(folder: Path) -> dict[str, dict[str, Any]]:
    """The tables by part: cohort, splits, labs, values, scaler, ecg, leads, raw."""
    folder, meta = Path(folder), read_meta(folder)
    cohort = read_part(folder, "cohort.csv")
    return {
        "cohort": cohort_table(folder, meta, cohort),
        "splits": splits_table(meta, cohort),
        "labs": labs_table(folder, meta),
        "values": read_part(folder, "lab_summary.csv").to_dict(as_series=False),
        "scaler": scaler_table(folder, meta, cohort),
        "ecg": ecg_table(folder, meta),
        "leads": leads_table(folder, meta),
        "raw": read_part(folder, "raw_checks.csv").to_dict(as_series=False),
    }


def parameters(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What the suites ask of this dataset's settings."""
    settings = Settings(**meta["settings"])
    return {
        "samples": sum(meta["sizes"].values()),
        "last_index": max(meta["sizes"].values()) - 1,
        "min_labs": settings.min_labs,
        "labs": len(LABS),
        "lab_rows": len(SPLITS) * len(lab_columns(settings.missing_flags)),
        "leads": len(LEADS),
        "joint": settings.ecg_scaling == "joint",
    }


def read_part(folder: Path, name: str) -> pl.DataFrame:
    try:
        return pl.read_csv(folder / name)
    except (OSError, pl.exceptions.PolarsError) as error:  # whose own message may quote a row
        raise DataError(
            f"{folder / name} is missing or damaged ({type(error).__name__}): {mend(folder)}"
        ) from None


def cohort_table(folder: Path, meta: dict, cohort: pl.DataFrame) -> dict[str, Any]:
    """cohort.csv beside the labels and groups that are stored, and in how many splits a subject and a study
    are; a row that no array has gets -1."""
    stored = {}
    for kind in ("label", "group"):
        arrays = {name: read_array(folder, f"{name}.{kind}.npy", meta, verify=False) for name in SPLITS}
        rows = cohort.select("split", "index").iter_rows()
        stored[f"stored_{kind}"] = [
            int(arrays[name][i]) if name in arrays and 0 <= i < len(arrays[name]) else -1 for name, i in rows
        ]
    splits = pl.col("split").n_unique()
    cohort = cohort.with_columns(
        splits_of_subject=splits.over("subject_id"),
        splits_of_study=splits.over("study_id"),
        groups_of_subject=pl.col("group").n_unique().over("subject_id"),
        subjects_of_group=pl.col("subject_id").n_unique().over("group"),
    )
    return cohort.to_dict(as_series=False) | stored


def splits_table(meta: dict, cohort: pl.DataFrame) -> dict[str, list]:
    """Each split's samples, subjects and share of deaths beside what the settings ask for."""
    wanted = meta["settings"]["test_subjects"] or meta["test_subjects"]
    rows = {name: cohort.filter(pl.col("split") == name) for name in SPLITS}
    return {
        "split": list(SPLITS),
        "samples": [len(rows[name]) for name in SPLITS],
        "stored": [meta["sizes"][name] for name in SPLITS],
        "subjects": [rows[name]["subject_id"].n_unique() for name in SPLITS],
        "wanted_subjects": [wanted if name == "test" else None for name in SPLITS],
        "deaths": [float(rows[name]["y"].mean() or 0) for name in SPLITS],
    }


def labs_table(folder: Path, meta: dict) -> dict[str, list]:
    """Each split's columns of bloodlabs: their pinned and their stored name and item, range, count of NaN."""
    settings = Settings(**meta["settings"])
    pinned = lab_columns(settings.missing_flags)
    names, items = meta["lab_columns"], meta["lab_items"]
    columns = {"split": [], "column": [], "name": [], "pinned": [], "itemid": [], "pinned_itemid": []}
    columns |= {"low": [], "high": [], "invalid": []}
    for split in SPLITS:
        x_NI = read_array(folder, f"{split}.bloodlabs.npy", meta, verify=False)
        for i in range(x_NI.shape[1]):
            lab = settings.labs[i % len(LABS)]
            row = (split, i, names[i], pinned[i], items[i % len(LABS)], lab.itemid)
            row += (
                float(np.nanmin(x_NI[:, i])),
                float(np.nanmax(x_NI[:, i])),
                int(np.isnan(x_NI[:, i]).sum()),
            )
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    return columns


def scaler_table(folder: Path, meta: dict, cohort: pl.DataFrame) -> dict[str, list]:
    """On whom scaler.npz was fitted, beside the training samples."""
    with np.load(folder / "scaler.npz") as stored:
        n_fit, fit_sha256 = int(stored["n_fit"]), str(stored["fit_sha256"])
        quantiles_QI, median_I = stored["quantiles_QI"], stored["median_I"]
    train = cohort.filter(pl.col("split") == "train")["hadm_id"]
    steps = np.diff(quantiles_QI, axis=0)
    return {
        "n_fit": [n_fit],
        "n_train": [len(train)],
        "fit_sha256": [fit_sha256],
        "train_sha256": [hash_of(train)],
        "meta_sha256": [meta["scaler"]["fit_sha256"]],
        "columns": [quantiles_QI.shape[1]],
        "falling": [int((steps < 0).sum())],
        "lowest_median": [float(median_I.min())],
        "highest_median": [float(median_I.max())],
    }


def ecg_table(folder: Path, meta: dict) -> dict[str, np.ndarray]:
    """Each recording's range and how many of its samples are no number."""
    parts = []
    for split in SPLITS:
        for start in range(0, meta["sizes"][split], BLOCK):
            # mapped anew each time, so that what was read is let go
            x_NLT = read_array(folder, f"{split}.ecg.npy", meta, verify=False, mmap=True)[
                start : start + BLOCK
            ]
            x_NT = np.asarray(x_NLT, dtype=np.float32).reshape(len(x_NLT), -1)
            parts.append((np.arange(start, start + len(x_NT)), np.fmin.reduce(x_NT, axis=1)))
            parts[-1] += (np.fmax.reduce(x_NT, axis=1), np.isnan(x_NT).sum(axis=1), [split] * len(x_NT))
    names = ("index", "low", "high", "invalid", "split")
    return {
        name: np.concatenate(column) for name, column in zip(names, zip(*parts, strict=True), strict=True)
    }


def leads_table(folder: Path, meta: dict) -> dict[str, list]:
    """Each lead's place and pinned name; how well the four derived leads follow from I and II.

    `follows` is the median correlation over recordings, null for leads that are measured: 1 by definition,
    measured 1.000 on 50 real recordings, and at most 0.75 where aVF and aVL are exchanged.
    """
    x_NLT = _spread_over(folder, meta)
    x = dict(zip(LEADS, x_NLT.transpose(1, 0, 2), strict=True))
    follows = {
        lead: float(np.nanmedian(_correlations(x[lead], a * x["I"] + b * x["II"])))
        for lead, (a, b) in DERIVED.items()
    }
    return {
        "place": list(range(len(LEADS))),
        "lead": meta["leads"],
        "pinned": list(LEADS),
        "follows": [follows.get(lead) for lead in LEADS],
    }


def _spread_over(folder: Path, meta: dict) -> np.ndarray:
    """Up to LEADS_SAMPLE training recordings, evenly spread."""
    size = meta["sizes"]["train"]
    rows = np.unique(np.linspace(0, size - 1, min(size, LEADS_SAMPLE)).astype(int))
    return read_array(folder, "train.ecg.npy", meta, verify=False, mmap=True)[rows].astype(np.float32)


def _correlations(x_NT: np.ndarray, y_NT: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each row; NaN where one of them is constant."""
    x_NT, y_NT = (z - z.mean(axis=1, keepdims=True) for z in (x_NT, y_NT))
    scale_N = np.sqrt((x_NT**2).sum(axis=1) * (y_NT**2).sum(axis=1))
    return np.divide((x_NT * y_NT).sum(axis=1), scale_N, out=np.full(len(x_NT), np.nan), where=scale_N > 0)
