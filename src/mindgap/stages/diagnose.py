"""diagnose: whether the reliabilities of kept models decide anything, by the permutation diagnostic."""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mindgap.base.view import Samples
from mindgap.core.evaluation import encode, predict
from mindgap.core.loop import Cell
from mindgap.core.network import MultimodalNet
from mindgap.core.params import Params
from mindgap.core.records import csv_text, provenance_json, unseal, write_atomically
from mindgap.data import CREDENTIALED
from mindgap.data.dataset import Dataset, Split
from mindgap.data.errors import SourceMissing
from mindgap.engine.jobs import set_up
from mindgap.engine.kept import KeptModelError, keep_again, load_model
from mindgap.parts.fusions import giving_reliabilities
from mindgap.parts.fusions.weighing import Weighing
from mindgap.parts.query import METHODS
from mindgap.parts.query.bmmal import scales, shares
from mindgap.results.diagnosis import DIAGNOSIS_COLUMNS, OF_MODELS, diagnosis_rows
from mindgap.results.permutation import (
    HOWS,
    RULES,
    DiagnosticError,
    Gap,
    How,
    permutation_gap,
    visible_share,
)
from mindgap.results.provenance import differ
from mindgap.stages.blueprint import load_prepared
from mindgap.stages.paths import places
from mindgap.stages.report import kept_selection
from mindgap.stages.runs import chosen_recipe, kept_path, run_of, setting_of

# Axes: N samples, M modalities, D width of a token, E of what a modality brings, C classes.


def diagnose_stage(params: Params, dataset_name: str, regime: str, keep: Path | None = None) -> None:
    """Write the gaps of all kept models of params.yaml as a table, and beside it where they come from.

    `keep`: a folder of `mindgap keep` that gets both too, named with the fusion as well. Raises a
    DiagnosticError or a KeptModelError before anything is written.
    """
    where, name = places(dataset_name), f"{dataset_name}-{regime}"
    rows, records, fusion = [], {}, params.at_scale.model.fusion["name"]
    if keep is not None:
        if dataset_name in CREDENTIALED:
            raise DiagnosticError(f"{dataset_name} is credentialed: leave --keep out, its table stays inside")
        if (scale := kept_selection(keep).scale) != params.scale:
            raise DiagnosticError(
                f"{keep} is of scale {scale}, these runs of {params.scale}: leave --keep out"
            )
    try:
        dataset = load_prepared(params, dataset_name)
    except SourceMissing as missing:
        print(f"diagnose {name} is skipped: {missing}", flush=True)
    else:
        named = list(product(params.mitigation, params.query))
        cells = [
            Cell(dataset_name, regime, mitigation, seed, query)
            for (mitigation, query), seed in product(named, params.seeds)
        ]
        records = {cell: _record(params, cell, dataset) for cell in cells}  # before anything is computed
        print(f"diagnose {name}: {len(cells)} models", flush=True)
        set_up("cpu")
        for mitigation, query in named:
            of_seeds = {
                cell.seed: (record["run"][:16], _gaps(cell, dataset, params.diagnose_sources))
                for cell, record in records.items()
                if (cell.mitigation, cell.query) == (mitigation, query)
            }
            run = (params.scale, dataset_name, regime, mitigation, query, fusion)
            rows += diagnosis_rows(dict(zip(OF_MODELS, run, strict=True)), of_seeds)
    table = csv_text(DIAGNOSIS_COLUMNS, rows)
    told = provenance_json(records.values(), diagnosis=table)
    paths = [where.diagnosis / name] + [keep / "diagnosis" / f"{name}-{fusion}"] * (keep is not None)
    for path in paths:
        write_atomically(Path(f"{path}.csv"), table.encode())
        write_atomically(Path(f"{path}.json"), told.encode())


@torch.no_grad()
def diagnose(
    model: MultimodalNet,
    split: Split,
    given_NM: np.ndarray | None = None,
    seed: int = 0,
    hows: Sequence[How] = HOWS[:1],
    tokens_NMD: Tensor | None = None,
) -> list[Gap]:
    """The gap of each rule, with the model's predictions of one modality each as experts.

    Reliabilities are those that its fusion gives, or `given_NM` (in 0..1) instead. Where the fusion weighs by
    its own, the last gap is of the model itself ("own"), with weights of other samples in its fusion.
    `tokens_NMD`: those of the split, where they are known. Raises a DiagnosticError for a fusion without
    reliabilities, by name.
    """
    tokens_NMD, present_NM = encode(model, split) if tokens_NMD is None else tokens_NMD, split.present_NM
    _, reliability_NM = model.fuse_and_weigh(tokens_NMD, present_NM)
    by_fusion = given_NM is None
    if by_fusion and reliability_NM is None:
        name = model.spec.fusion["name"]
        raise DiagnosticError(
            f"model.fusion: {name!r} gives no reliabilities, so there is nothing to permute: take "
            f"{', '.join(giving_reliabilities())}, or reliabilities from elsewhere (diagnose_sources: "
            f"acquisition, or truth where the dataset is rendered)"
        )
    given_NM = reliability_NM.cpu().numpy() if by_fusion else given_NM
    alone_MM = torch.eye(len(model.modalities), dtype=torch.bool, device=present_NM.device)
    probs_NMC = torch.stack([predict(model, tokens_NMD, present_NM & one_M) for one_M in alone_MM], dim=1)
    arrays = probs_NMC.cpu().numpy(), given_NM, split.y_N.cpu().numpy(), present_NM.cpu().numpy()
    rules = [rule for rule in RULES if rule != "mean"]
    gaps = [permutation_gap(*arrays, rule, how, seed=seed) for how, rule in product(hows, rules)]
    if by_fusion and isinstance(model.fusion, Weighing):
        whole = present_NM.all(dim=1)
        part_NME, _ = model.fusion.weigh(tokens_NMD[whole], present_NM[whole])

        def own(weight_NM: np.ndarray) -> np.ndarray:
            fused_NH = model.fusion.combine(part_NME, torch.from_numpy(weight_NM).to(part_NME))
            return model.classify(fused_NH).double().cpu().numpy()

        # Shares add to 1, so those of a sample stay together.
        gaps.append(permutation_gap(*arrays, own, "joint", seed=seed))
    return gaps


def acquisition_weights(model: MultimodalNet, split: Split, tokens_NMD: Tensor) -> np.ndarray:
    """By what BMMAL would multiply each modality's gradients, N x M in 0..1, whichever method picked."""
    return scales(shares(Samples(model, lambda: tokens_NMD, split.present_NM))).cpu().numpy()


def _gaps(cell: Cell, dataset: Dataset, sources: Sequence[str]) -> list[tuple[str, Gap]]:
    """The gaps of a kept model with their sources, by the same permutations for every model."""
    path, test = kept_path(cell), dataset.test
    model = load_model(path, dataset)
    tokens_NMD = encode(model, test)
    given = {
        "fusion": lambda: None,
        "acquisition": lambda: acquisition_weights(model, test, tokens_NMD),
        "truth": lambda: visible_share(places(dataset.name).prepared, "test", tuple(dataset.modalities)),
    }
    try:
        return [
            (source, gap)
            for source in sources
            for gap in diagnose(model, test, given[source](), hows=HOWS, tokens_NMD=tokens_NMD)
        ]
    except DiagnosticError as error:
        raise DiagnosticError(f"{path}, on the test set of {dataset.name}: {error}") from error


def _record(params: Params, cell: Cell, dataset: Dataset) -> dict[str, Any]:
    """The record of a cell's kept model, which is whole and has the settings that params.yaml asks for."""
    path = kept_path(cell)
    load_model(path, dataset)
    record = unseal(path.with_suffix(".json"))
    dropout = params.at_scale.model.has_dropout(METHODS[cell.query].dropout)
    setting = setting_of(params, cell, chosen_recipe(params, cell.dataset, cell.regime), dropout)
    asked = run_of(params, cell, dataset, setting=setting).provenance["settings"]
    made = record["provenance"]["settings"]
    there, here = (json.dumps({**one, "data": {}}, sort_keys=True) for one in (made, asked))
    if there != here:
        raise KeptModelError(
            f"{path}.safetensors is of other settings than params.yaml has (there and here, "
            f"{differ(there, here)}): {keep_again(cell.dataset)}, or set params.yaml back"
        )
    return record
