"""render@<dataset>: a prepared dataset, checked against its expectations."""

from mindgap.data.quintfeatures import Style
from mindgap.data.render import render_dataset, usable_cores
from mindgap.expectations import validate_rendered
from mindgap.machine import workers
from mindgap.params import Params
from mindgap.stages.paths import EXPECTATIONS, PREPARED, VALIDATION


def render_stage(params: Params, dataset: str) -> None:
    """Render and check; a dataset that fails leaves its page in reports/validation and fails the stage."""
    render = params.at_scale.render
    render_dataset(
        dataset,
        PREPARED / dataset,
        root_seed=render.root_seed,
        train_size=render.train_size,
        test_size=render.test_size,
        style=Style(**render.style),
        absence=params.absence.get(dataset),
        workers=workers(default=usable_cores()),
    )
    validate_rendered(PREPARED / dataset, EXPECTATIONS, VALIDATION)
