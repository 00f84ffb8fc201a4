"""Rendering a dataset to disk: arrays that a training run loads whole, and a table of what every image shows.

Worker processes write their rows straight into the memory-mapped arrays, so memory stays flat. Each image has
its own seed, so the result does not depend on the number of workers. All is written beside the target and
renamed at the end: a killed render leaves no dataset.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mindgap.base.modality import Modality
from mindgap.base.progress import Progress
from mindgap.data import RENDERED
from mindgap.data.contact_sheet import contact_sheet
from mindgap.data.draws import stable_hash
from mindgap.data.errors import DataError
from mindgap.data.flow import Flow
from mindgap.data.prepared import new_array, write_meta, written_at_once
from mindgap.data.presence import absence_rates, draw_presence
from mindgap.data.quintfeatures.images import FEATURES, VALUES, Style, caption, image_seed, render_image
from mindgap.data.quintfeatures.pairing import Pairing, draw_latents
from mindgap.data.storage import SPLITS
from mindgap.data.workers import map_processes, usable_cores

CHUNK = 64  # images a task: 0.1 s at 64 px, short enough to even out the workers' ends
ATTRIBUTES = ("split", "index", "modality", *FEATURES, "erased_fraction", "label")


def find_dataset(name: str, **own: Any) -> Pairing:
    """A rendered dataset by name, changed by what is given of `absence`, `label_values` and `style`."""
    if name not in RENDERED:
        raise DataError(f"unknown dataset {name!r}; the rendered ones are {', '.join(RENDERED)}")
    return replace(RENDERED[name], **{key: one for key, one in own.items() if one is not None})


@dataclass(frozen=True)
class Latents:
    """Everything about a split that is drawn before rendering (N samples, M modalities, F = 5 features)."""

    features_NMF: np.ndarray
    present_NM: np.ndarray
    label_N: np.ndarray


def draw_split(
    name: str,
    split: str,
    size: int,
    *,
    root_seed: int,
    style: Style | None = None,
    absence: Mapping[str, float] | None = None,
    label_values: int | None = None,
    own_style: Mapping[str, Mapping[str, Any]] | None = None,
) -> Latents:
    """Labels, features and presence of one split; the test set is complete whatever the absence.

    `style` is that of all modalities, `own_style` what some have otherwise (`Pairing.style`). What is None is
    as the dataset declares it.
    """
    pairing = find_dataset(name, absence=absence, label_values=label_values, style=own_style)
    rates_M = absence_rates(pairing.modalities, pairing.absence)
    features_rng, presence_rng = (
        np.random.default_rng([root_seed, stable_hash(name), stable_hash(purpose), SPLITS.index(split)])
        for purpose in ("features", "presence")
    )
    features_NMF, label_N = draw_latents(pairing, size, features_rng, style)
    present_NM = draw_presence(size, rates_M if split == "train" else np.zeros_like(rates_M), presence_rng)
    return Latents(features_NMF, present_NM, label_N)


@dataclass(frozen=True)
class Chunk:
    """A worker's task: these rows of one array."""

    path: Path
    dataset: str
    split: int
    modality: int
    ids: np.ndarray
    features_NF: np.ndarray
    root_seed: int
    style: Style


def render_chunk(chunk: Chunk) -> np.ndarray:
    """Render the rows into their array; the erased fractions come back."""
    array = np.load(chunk.path, mmap_mode="r+")
    erased = np.empty(len(chunk.ids))
    for k, (i, features) in enumerate(zip(chunk.ids.tolist(), chunk.features_NF.tolist(), strict=True)):
        seed = image_seed(chunk.root_seed, chunk.dataset, chunk.split, i, chunk.modality)
        array[i], erased[k] = render_image(features, seed, chunk.style)
    return erased


def render_dataset(
    name: str,
    out_dir: Path | str,
    *,
    root_seed: int,
    train_size: int,
    test_size: int,
    style: Style | None = None,
    absence: Mapping[str, float] | None = None,
    label_values: int | None = None,
    own_style: Mapping[str, Mapping[str, Any]] | None = None,
    contact_sheet_size: int = 12,
    workers: int | None = None,
    progress: bool = True,
) -> dict:
    """Render both splits of a dataset into `out_dir`, new, empty or a dataset itself; its meta.

    `style` to `own_style` as in `draw_split`. Raises ValueError for what cannot be rendered.
    """
    pairing = find_dataset(name, absence=absence, label_values=label_values, style=own_style)
    style, out_dir = style or Style(), Path(out_dir)
    _check_sizes(pairing, style)
    sizes = {"train": train_size, "test": test_size}
    for split, size in sizes.items():
        if size < 1:
            raise ValueError(f"{split}_size is {size}: make it at least 1")
    if not 0 <= root_seed < 2**32:
        raise ValueError(f"root_seed is {root_seed}: make it a number in 0..{2**32 - 1}")
    own = {"absence": absence, "label_values": label_values, "own_style": own_style}
    latents = {
        split: draw_split(name, split, size, root_seed=root_seed, style=style, **own)
        for split, size in sizes.items()
    }
    with written_at_once(out_dir) as folder:
        styles = list(pairing.styles(style).values())
        erased = _render_images(name, folder, latents, root_seed, styles, workers or usable_cores(), progress)
        _write_tables(pairing, folder, latents, erased)
        _write_contact_sheet(pairing, folder, latents["train"], contact_sheet_size)
        return _write_meta(name, pairing, folder, root_seed, style, latents)


def _check_sizes(pairing: Pairing, style: Style) -> None:
    for modality, own in pairing.styles(style).items():
        if own.image_size != style.image_size:
            raise ValueError(
                f"image_size of {modality} is {own.image_size}, but {style.image_size} of the dataset: the "
                "modalities of a dataset share one"
            )


def _render_images(
    name: str,
    folder: Path,
    latents: Mapping[str, Latents],
    root_seed: int,
    styles_M: Sequence[Style],
    workers: int,
    progress: bool,
) -> dict[str, np.ndarray]:
    """Write the image arrays, zeros where a modality is absent; the erased fractions (N x M, NaN there)."""
    chunks, erased = [], {}
    for s, split in enumerate(SPLITS):
        drawn = latents[split]
        erased[split] = np.full(drawn.present_NM.shape, np.nan)
        for m, modality in enumerate(find_dataset(name).modalities):
            path = folder / f"{split}.{modality}.npy"
            shape = (len(drawn.label_N), styles_M[m].image_size, styles_M[m].image_size, 3)
            new_array(path, np.uint8, shape).flush()
            ids = np.flatnonzero(drawn.present_NM[:, m])
            for part in np.split(ids, range(CHUNK, len(ids), CHUNK)):
                features_NF = drawn.features_NMF[part, m]
                chunks.append(Chunk(path, name, s, m, part, features_NF, root_seed, styles_M[m]))
    total = sum(len(chunk.ids) for chunk in chunks)
    with Progress(f"render {name}", total, unit="images") if progress else nullcontext() as shown:
        for chunk, fractions in zip(chunks, map_processes(render_chunk, chunks, workers), strict=True):
            erased[SPLITS[chunk.split]][chunk.ids, chunk.modality] = fractions
            if shown:
                shown.advance(len(chunk.ids))
    return erased


def _write_tables(
    pairing: Pairing, folder: Path, latents: Mapping[str, Latents], erased: Mapping[str, np.ndarray]
) -> None:
    """Presence and label arrays, and attributes.csv: one row for each image that was rendered."""
    for split, drawn in latents.items():
        np.save(folder / f"{split}.present.npy", drawn.present_NM)
        np.save(folder / f"{split}.label.npy", drawn.label_N)
    with (folder / "attributes.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(ATTRIBUTES)
        for split, drawn in latents.items():
            writer.writerows(_attribute_rows(pairing, split, drawn, erased[split]))


def _attribute_rows(pairing: Pairing, split: str, drawn: Latents, erased_NM: np.ndarray) -> Iterable[tuple]:
    for i, m in np.argwhere(drawn.present_NM).tolist():
        fraction = f"{erased_NM[i, m]:.6f}"
        yield split, i, pairing.modalities[m], *drawn.features_NMF[i, m].tolist(), fraction, drawn.label_N[i]


def _write_contact_sheet(pairing: Pairing, folder: Path, drawn: Latents, size: int) -> None:
    """The first training samples: the modalities of one side by side, as many samples a row as fit in six."""
    modalities = pairing.modalities
    arrays = [np.load(folder / f"train.{modality}.npy", mmap_mode="r") for modality in modalities]
    images, captions = [], []
    for i in range(min(size, len(drawn.label_N))):
        for m, modality in enumerate(modalities):
            there = drawn.present_NM[i, m]
            images.append(np.array(arrays[m][i]) if there else None)
            captions.append(caption(drawn.features_NMF[i, m]) if there else f"{modality} is absent")
    columns = len(modalities) * max(1, 6 // len(modalities))
    if images:
        contact_sheet(folder / "contact_sheet.png", images, captions, columns=columns)


def _write_meta(
    name: str,
    pairing: Pairing,
    folder: Path,
    root_seed: int,
    style: Style,
    latents: Mapping[str, Latents],
) -> dict:
    image = Modality("image", (style.image_size, style.image_size, 3))
    flow = Flow()
    for split, drawn in latents.items():
        for m, modality in enumerate(pairing.modalities):
            absent = int((~drawn.present_NM[:, m]).sum())
            flow.start(f"{split}: {modality}", "samples drawn", len(drawn.label_N))
            flow.step(f"{split}: {modality}", "images rendered", excluded={"modality is absent": absent})
    return write_meta(
        folder,
        dataset=name,
        modalities=dict.fromkeys(pairing.modalities, image),
        weak=pairing.weak,
        num_classes=pairing.num_classes,
        class_names=pairing.class_names,
        ceilings=pairing.ceilings,
        sizes={split: len(drawn.label_N) for split, drawn in latents.items()},
        flow=flow,
        details={
            "label_features": pairing.label_features,
            "feature_values": VALUES,
            "root_seed": root_seed,
            "style": asdict(style),
            "absence": dict(pairing.absence),
            "label_values": pairing.label_values,
            "own_style": {name: dict(own) for name, own in pairing.style.items()},
        },
    )
