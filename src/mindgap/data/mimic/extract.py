"""MIMIC-IV and MIMIC-IV-ECG to a prepared dataset: a sample is an admission with blood labs and an ECG.

Labs and ECG lie within `window_hours` of the admission, before or after, and are joined by subject and time.
What is wrong with the files stops the extraction: a table without a column or with other rows than its
release, an id twice, a subject unknown to patients, an ECG path that belies its ids, a lab that is another
measurement or comes in another unit or on another scale, one ECG in twenty without its data. What is wrong
with a row leaves it out, counted by reason in flow.csv: an admission that ends before it begins or follows
its patient's death, a value that is no number, impossible or in another unit, an ECG that is flat,
incomplete, not measured or not what its header was written for.

Beside the arrays lie cohort.csv (whose sample is which row), ecg_unusable.csv, lab_summary.csv,
raw_checks.csv and scaler.npz. All of it is data of patients, under the data use agreement. Recordings are
written twice, for the split is drawn among the subjects that have one: the disk needs room for two datasets.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

from mindgap.base.modality import Modality
from mindgap.data.errors import DataError
from mindgap.data.flow import Flow
from mindgap.data.mimic import ecg
from mindgap.data.mimic.cohort import count_test_subjects, groups_of, usable_admissions
from mindgap.data.mimic.labs import LABS, lab_values, summary
from mindgap.data.mimic.raw import (
    Checks,
    check_items,
    find_files,
    read_admissions,
    read_patients,
    read_records,
)
from mindgap.data.mimic.scaling import Scaler, fit_scaler
from mindgap.data.mimic.settings import Settings
from mindgap.data.prepared import new_array, write_meta, written_at_once
from mindgap.data.storage import SPLITS

MODALITIES = ("ecg", "bloodlabs")
CLASSES = ("alive", "dead")
COHORT = ("split", "index", "hadm_id", "subject_id", "group", "y", "n_labs", "study_id")
PARTS = ("subjects", "admissions", "lab rows", "lab values", "ecg records")  # of flow.csv, in this order
BLOCK = 256  # recordings copied at a time: 30 MB


@dataclass(frozen=True)
class Extraction:
    """What every step of one extraction needs."""

    files: dict[str, Path]
    settings: Settings
    flow: Flow
    checks: Checks
    scratch: Path


def prepare(raw: Path, out_dir: Path, settings: Settings, *, workers: int, progress: bool) -> dict:
    """Write the dataset; its meta. SourceMissing where files are absent, DataError where they are wrong."""
    files = find_files(Path(raw))
    with written_at_once(out_dir) as folder:
        job = Extraction(files, settings, Flow(), Checks(), folder / "scratch")
        job.scratch.mkdir()
        admissions, records = find_admissions(job)
        admissions, x_NI = add_labs(job, admissions)
        samples, x_NI, rows_N = add_ecgs(job, admissions, x_NI, records, workers, progress)
        samples = with_splits(job, samples)
        scaler = write_arrays(folder, job, samples, x_NI, rows_N)
        samples.select(COHORT).write_csv(folder / "cohort.csv")
        pl.DataFrame(job.checks.rows).write_csv(folder / "raw_checks.csv")
        summary(x_NI, settings.labs).write_csv(folder / "lab_summary.csv")
        shutil.move(job.scratch / "ecg_unusable.csv", folder)
        shutil.rmtree(job.scratch)
        return describe(folder, job, samples, scaler)


def find_admissions(job: Extraction) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Consistent admissions with an ECG record in their window, and all records; what is small is checked
    before labevents is read."""
    files, settings, flow = job.files, job.settings, job.flow
    release, rows = settings.release, settings.rows
    check_items(files["d_labitems"], release, settings.labs, rows)
    patients = read_patients(files["patients"], release, rows)
    records = read_records(files["record_list"], release, rows)
    admissions = read_admissions(files["admissions"], release, patients, rows)
    flow.start("subjects", "patients", len(patients))
    admissions = usable_admissions(admissions, settings.horizon_days, flow, job.checks)
    found = ecg.find_candidates(records, admissions, settings.window_hours)
    known = records.filter(pl.col("subject_id").is_in(admissions["subject_id"].unique().implode()))
    flow.start("ecg records", "record_list", len(records))
    flow.step("ecg records", "cohort", {"subject without a consistent admission": len(records) - len(known)})
    outside = len(known) - found["study_id"].n_unique()
    flow.step("ecg records", "window", {f"not within {settings.window_hours} h of an admission": outside})
    if not len(found):
        path, hours = files["record_list"], settings.window_hours
        raise DataError(f"{path}: no record lies within {hours} h of an admission: are they of one release?")
    has_record = np.isin(np.arange(len(admissions)), found["admission"])
    flow.step("admissions", "ecg", {_none("ECG record", settings): (~has_record).sum()})
    return admissions.filter(has_record), records


def _none(what: str, settings: Settings) -> str:
    return f"no {what} within {settings.window_hours} h"


def add_labs(job: Extraction, admissions: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray]:
    """Admissions with enough labs (n_labs) and their values (N x 50)."""
    path, hours, settings = job.files["labevents"], job.settings.window_hours, job.settings
    x_NI = lab_values(
        path,
        admissions,
        hours,
        job.scratch,
        release=settings.release,
        flow=job.flow,
        checks=job.checks,
        labs=settings.labs,
        unusual=settings.unusual_labs,
        rows_of=settings.rows,
    )
    admissions = admissions.with_columns(n_labs=np.isfinite(x_NI).sum(axis=1))
    enough = (admissions["n_labs"] >= job.settings.min_labs).to_numpy()
    if not enough.any():
        asked = f"{job.settings.min_labs} of the labs within {hours} h"
        raise DataError(f"{path}: none of {len(admissions):,} admissions with an ECG record has {asked}")
    job.flow.step("admissions", "labs", {f"too few labs within {hours} h": (~enough).sum()})
    return admissions.filter(enough), x_NI[enough]


def add_ecgs(
    job: Extraction,
    admissions: pl.DataFrame,
    x_NI: np.ndarray,
    records: pl.DataFrame,
    workers: int,
    progress: bool,
) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
    """Admissions with a usable ECG (study_id), their labs, and their rows in scratch/ecg.npy."""
    candidates = ecg.find_candidates(records, admissions, job.settings.window_hours)
    studies = candidates["study_id"].n_unique()
    job.flow.step("ecg records", "labs", {"admission without labs": job.flow.left("ecg records") - studies})
    taken_N, unusable = ecg.write_ecgs(
        candidates,
        len(admissions),
        job.files["record_list"].parent,
        job.scratch / "ecg.npy",
        samples=job.settings.ecg_samples,
        scaling=job.settings.ecg_scaling,
        workers=workers,
        progress=progress,
    )
    usable = taken_N >= 0
    taken = len(np.unique(taken_N[usable]))
    unusable.write_csv(job.scratch / "ecg_unusable.csv")
    ecg.fill_flow(job.flow, unusable, studies - taken - len(unusable))
    tried = taken + len(unusable)
    ecg.check_faulty(unusable, records, tried, job.files["record_list"], job.checks)
    job.flow.step("admissions", "ecg data", {_none("usable ECG", job.settings): (~usable).sum()})
    samples = admissions.with_columns(study_id=taken_N).filter(usable)
    return samples, x_NI[usable], np.flatnonzero(usable)


def with_splits(job: Extraction, samples: pl.DataFrame) -> pl.DataFrame:
    """Samples with group, split and index, both by hadm_id; all of a subject lies in one split."""
    group_N = groups_of(samples["subject_id"], job.settings.split_seed)
    chosen = count_test_subjects(group_N, job.settings.test_subjects, job.settings.test_fraction)
    total = job.flow.left("subjects")
    job.flow.step("subjects", "cohort", {"no admission in the cohort": total - (group_N.max() + 1)})
    is_test = pl.col("group") < chosen
    return samples.with_columns(group=group_N).with_columns(
        split=pl.when(is_test).then(pl.lit("test")).otherwise(pl.lit("train")),
        index=pl.int_range(pl.len()).over(is_test),
    )


def write_arrays(
    folder: Path, job: Extraction, samples: pl.DataFrame, x_NI: np.ndarray, rows_N: np.ndarray
) -> Scaler:
    """Write the arrays of both splits; the scaler that the training samples gave."""
    is_train = (samples["split"] == "train").to_numpy()
    scaler = fit_scaler(x_NI[is_train], samples["hadm_id"].filter(is_train))
    scaler.save(folder / "scaler.npz")
    labs_NI = scaler.transform(x_NI)
    if job.settings.missing_flags:
        labs_NI = np.hstack([labs_NI, np.isnan(x_NI).astype(np.float32)])
    for name in SPLITS:
        here = (samples["split"] == name).to_numpy()
        np.save(folder / f"{name}.bloodlabs.npy", labs_NI[here])
        np.save(folder / f"{name}.present.npy", np.ones((here.sum(), len(MODALITIES)), bool))
        np.save(folder / f"{name}.label.npy", samples["y"].filter(here).to_numpy())
        np.save(folder / f"{name}.group.npy", samples["group"].filter(here).to_numpy())
        copy_rows(job.scratch / "ecg.npy", rows_N[here], folder / f"{name}.ecg.npy")
    return scaler


def copy_rows(source: Path, rows_N: np.ndarray, target: Path) -> None:
    """An array of these rows of another, both on disk; each block is mapped anew, so memory stays flat."""
    shape, dtype = np.load(source, mmap_mode="r").shape[1:], np.load(source, mmap_mode="r").dtype
    new_array(target, dtype, (len(rows_N), *shape)).flush()
    for start in range(0, len(rows_N), BLOCK):
        rows = rows_N[start : start + BLOCK]
        np.load(target, mmap_mode="r+")[start : start + len(rows)] = np.load(source, mmap_mode="r")[rows]


def lab_columns(missing_flags: bool) -> list[str]:
    """Names of the columns of bloodlabs."""
    names = [lab.label for lab in LABS]
    return names + [f"{name}, imputed" for name in names] * missing_flags


def describe(folder: Path, job: Extraction, samples: pl.DataFrame, scaler: Scaler) -> dict:
    """Write flow.csv and meta.json; nothing of a single patient is in them."""
    settings = job.settings
    job.flow.rows.sort(key=lambda row: PARTS.index(row["part"]))
    columns = lab_columns(settings.missing_flags)
    shapes = {
        "ecg": ("signal", (len(ecg.LEADS), settings.ecg_samples)),
        "bloodlabs": ("table", (len(columns),)),
    }
    details = {
        "release": settings.release,
        "settings": asdict(settings),
        "leads": list(ecg.LEADS),
        "lab_columns": columns,
        "lab_items": [lab.itemid for lab in settings.labs],
        "lab_units": [list(lab.units) for lab in settings.labs],
        "test_subjects": _subjects(samples, "test"),
        "scaler": {"n_fit": scaler.n_fit, "fit_sha256": scaler.fit_sha256},
    }
    return write_meta(
        folder,
        dataset="mimic",
        modalities={name: Modality(*shapes[name]) for name in MODALITIES},
        weak=None,
        num_classes=len(CLASSES),
        class_names=CLASSES,
        ceilings=dict.fromkeys(("ecg", "bloodlabs", "ecg+bloodlabs"), 1.0),
        sizes={name: int((samples["split"] == name).sum()) for name in SPLITS},
        flow=job.flow,
        details=details,
        grouped=True,
    )


def _subjects(samples: pl.DataFrame, name: str) -> int:
    return samples.filter(pl.col("split") == name)["subject_id"].n_unique()
