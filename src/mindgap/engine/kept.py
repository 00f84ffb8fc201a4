"""Models whose weights a run kept (`keep_models: last`), rebuilt from their record."""

from pathlib import Path

import torch
from safetensors.torch import load

from mindgap.base.errors import MindGapError
from mindgap.base.gpu import Engine
from mindgap.core.loop import Cell
from mindgap.core.network import ModelSpec, MultimodalNet, build_model, place
from mindgap.core.params import Model
from mindgap.core.records import RecordError
from mindgap.core.run_code import run_code
from mindgap.data import CREDENTIALED
from mindgap.data.dataset import Dataset
from mindgap.data.storage import remake
from mindgap.engine.jobs import StoredModel


class KeptModelError(MindGapError):
    """Weights that cannot be used: not there, damaged, or of other code or data; the message has the mend."""


def keep_again(dataset: str) -> str:
    """What to do to have the models of last rounds, as the end of a sentence."""
    if dataset in CREDENTIALED:  # a DVC project of its own, with parameters that are not its own
        return f"set keep_models: last in params.yaml and run `dvc repro` in data/{dataset}"
    return "run `dvc exp run -S keep_models=last`"


def load_model(path: Path, dataset: Dataset, device: torch.device | str = "cpu") -> MultimodalNet:
    """The trained model of a run's last round, in eval mode.

    `path`: data/runs/<dataset>-<regime>/models/<query>-<mitigation>-<seed>, without an ending. Raises a
    KeptModelError unless weights and record are what was written, on this dataset and by the code there is.
    """
    path = Path(path)
    again = keep_again(dataset.name)
    if not path.with_suffix(".json").exists():
        raise KeptModelError(f"{path} was not kept: {again}, which trains last rounds anew where it must")
    try:
        kept = StoredModel.read(path)
        record, made = kept.record, kept.record["provenance"]
        settings = made["settings"]
        code = run_code(Cell(**record["cell"]), settings)
        spec = ModelSpec(
            **Model(**settings["setting"]["model"]).model_dump(),
            projection_dropout=settings["setting"]["recipe"]["projection_dropout"],
        )
    except RecordError as error:
        own = path.parents[3] if dataset.name in CREDENTIALED else None  # a DVC project of its own
        part = path.parents[1].name
        stage = f"acquire@{part.removeprefix(f'{dataset.name}-') if own else part}"
        raise KeptModelError(f"{error}: {remake(stage, own)}, with keep_models: last") from error
    except (LookupError, TypeError, ValueError) as error:
        raise KeptModelError(f"{path}.json is of other code than there is ({error!r}): {again}") from error
    for what, there in {"code": code, "data": dataset.digest}.items():
        if made[what] != there:
            raise KeptModelError(
                f"{path}.safetensors is of other {what} than there is ({made[what][:12]}, not {there[:12]}): "
                f"{again}"
            )
    model = build_model(dataset.modalities, dataset.num_classes, spec, seed=0)
    model.load_state_dict(load(kept.weights))
    return place(model, Engine.of(device), settings["setting"]["recipe"]["batch_size"]).eval()
