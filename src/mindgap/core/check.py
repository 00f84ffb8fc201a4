"""Every check of the parameters that needs no compute, beyond their form: names, settings, sizes.

Whatever could not be run is a `ParamsError` that names the key and the mend. The tables that are asked load
torch, so they are imported when they are needed.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mindgap.base.errors import ParamsError
from mindgap.core.asked import as_params_error, pairing_asked, source_settings
from mindgap.core.params import Params, Setting, Training, pick
from mindgap.core.recipe import Recipe

if TYPE_CHECKING:
    from mindgap.base.plugins import Registry

DATASETS_AT = "mindgap.data.DATASETS"
AUGMENTATIONS_AT = "mindgap.parts.augment.images.AUGMENTATIONS"


def check_params(params: Params) -> None:
    """Stop before any compute at whatever could not be run."""
    check_names(params)
    check_runs(params, params.dataset, params.regime)
    for name in params.diagnose:
        _check_sources(params, name)


def check_names(params: Params) -> None:
    """The part that a report needs, without plug-ins: datasets and regimes are known."""
    from mindgap.data import CREDENTIALED, DATASETS, SOURCES

    for name in params.published:
        pick(SOURCES, name, "published", "mindgap.data.SOURCES")
        if name not in CREDENTIALED:
            raise ParamsError(f"published: {name!r} is open: name it in `dataset` instead")
    for name in params.dataset:
        pick(DATASETS, name, "dataset", DATASETS_AT)
        if name in CREDENTIALED:
            raise ParamsError(
                f"dataset: {name!r} is credentialed and has a DVC project of its own, which shares nothing: "
                f"take it out of the list and run `dvc repro` in data/{name} (docs/data.md)"
            )
        for regime in params.regime:
            params.setting(name, regime)
    for name in params.diagnose:
        if name not in params.dataset:
            raise ParamsError(f"diagnose: {name!r} is not run: name it in `dataset` too, or take it out here")
    if params.diagnose and params.keep_models == "none":
        raise ParamsError("diagnose: it takes trained models: set keep_models: last (-S keep_models=last)")


def check_runs(params: Params, datasets: Iterable[str], regimes: Iterable[str]) -> None:
    """What runs of these datasets and regimes need, which need not be those of the file."""
    from mindgap.data import DATASETS

    datasets = list(datasets)
    for name in datasets:
        pick(DATASETS, name, "dataset", DATASETS_AT)
        if datasets.count(name) > 1:
            raise ParamsError(f"dataset: {name} is listed twice: name each once")
    _check_data(params)
    _check_methods(params)
    _check_mitigations(params)
    _check_evaluators(params)
    _check_model(params)
    _check_search(params)
    for dataset in datasets:
        for regime in regimes:
            _check_setting(params, params.setting(dataset, regime))


def _of_table(
    table: "Registry[Any]", where: str, keys: Mapping[str, Iterable[str]], used: Iterable[str]
) -> Iterator[str]:
    """The names under some keys, each of which the table has."""
    for key, names in keys.items():
        for name in _sound(table, names, used):
            pick(table, name, key, where)
            yield name


def _sound(table: "Registry[Any]", names: Iterable[str], used: Iterable[str]) -> list[str]:
    """The names without those of other packages that are not `used`: they may be broken."""
    return [name for name in names if name in used or not table.outside(name)]


def _check_data(params: Params) -> None:
    from mindgap.data import DATASETS, RENDERED, SOURCES
    from mindgap.data.errors import NotInstalled
    from mindgap.data.quintfeatures.images import Style

    scale, where = params.at_scale, f"scales.{params.scale}"
    for block in ("prepare", "recipe", "budget"):
        for name in _sound(SOURCES, getattr(scale, block), params.dataset):
            pick(DATASETS, name, f"{where}.{block}", DATASETS_AT)
    for name, recipes in scale.recipe.items():
        for regime in recipes:
            regimes = {"all": None, **scale.budget.get(name, {})}
            pick(regimes, regime, f"{where}.recipe.{name}", f"{where}.budget.{name}, beside all")
    as_params_error(f"{where}.render", Style, **scale.render.style)
    for name in _sound(SOURCES, scale.prepare, params.dataset):
        if name in RENDERED:
            pairing_asked(params, name)
        else:
            # Training needs none of the packages that only some files from outside are read with.
            with contextlib.nullcontext() if name in params.dataset else contextlib.suppress(NotInstalled):
                source_settings(params, name)


def _check_methods(params: Params) -> None:
    from mindgap.parts.query import METHODS
    from mindgap.parts.query.select import check_settings
    from mindgap.parts.starts import STARTS

    pick(STARTS, params.loop.start, "loop.start", "mindgap.parts.starts.STARTS")
    keys = {"query": params.query, "query_settings": params.query_settings}
    for name in _of_table(METHODS, "mindgap.parts.query.METHODS", keys, params.query):
        check_settings(name, params.query_settings.get(name, {}))
    needing = [name for name in params.query if METHODS[name].dropout]
    if needing and params.at_scale.model.head_dropout == 0:
        raise ParamsError(
            f"query: {needing[0]!r} needs dropout before the linear layer: set scales.{params.scale}.model."
            f"head_dropout above 0, or leave {needing[0]} out"
        )


def _check_mitigations(params: Params) -> None:
    from mindgap.parts.mitigations import MITIGATIONS, make_mitigation

    used = [*params.mitigation, params.search.mitigation]
    keys = {
        "mitigation": params.mitigation,
        "search.mitigation": [params.search.mitigation],
        "mitigation_settings": params.mitigation_settings,
    }
    for name in _of_table(MITIGATIONS, "mindgap.parts.mitigations.MITIGATIONS", keys, used):
        settings = params.mitigation_settings.get(name, {})
        as_params_error(f"mitigation_settings.{name}", make_mitigation, name, settings)


def _check_evaluators(params: Params) -> None:
    from mindgap.parts.evaluators import EVALUATORS, make_evaluator
    from mindgap.parts.evaluators.contract import OF_CURVES

    keys = {"evaluate": params.evaluate, "evaluate_settings": params.evaluate_settings}
    for name in _of_table(EVALUATORS, "mindgap.parts.evaluators.EVALUATORS", keys, params.evaluate):
        make_evaluator(name, params.evaluate_settings.get(name, {}))
    if lacking := [name for name in OF_CURVES if name not in params.evaluate]:
        raise ParamsError(
            f"evaluate: learning curves are made of {', '.join(lacking)} too: name it in the list"
        )


def _check_model(params: Params) -> None:
    from mindgap.parts.encoders import ENCODERS, encoder_settings
    from mindgap.parts.fusions import FUSIONS, fusion_settings

    model, where = params.at_scale.model, f"scales.{params.scale}.model"
    for kind in ENCODERS:
        settings = pick(model.encoder, kind, f"{where}.encoder", f"{where}.encoder")
        at, table = f"{where}.encoder.{kind}", f"mindgap.parts.encoders.ENCODERS[{kind!r}]"
        pick(ENCODERS[kind], pick(settings, "name", at, at), f"{at}.name", table)
        encoder_settings(at, kind, settings)
    for kind in model.encoder:
        pick(ENCODERS, kind, f"{where}.encoder", "mindgap.parts.encoders.ENCODERS")
    at = f"{where}.fusion"
    pick(FUSIONS, pick(model.fusion, "name", at, at), f"{at}.name", "mindgap.parts.fusions.FUSIONS")
    fusion_settings(at, model.fusion, model.width)


def _check_search(params: Params) -> None:
    from mindgap.parts.augment.images import AUGMENTATIONS

    for name in params.search.augmentation:
        pick(AUGMENTATIONS, name, "search.augmentation", AUGMENTATIONS_AT)


def _check_sources(params: Params, dataset: str) -> None:
    """Whether a dataset's models have the reliabilities that are to be diagnosed."""
    from mindgap.data import RENDERED
    from mindgap.parts.fusions import gives_reliabilities, giving_reliabilities

    model, sources = params.at_scale.model, params.diagnose_sources
    if "truth" in sources and dataset not in RENDERED:
        raise ParamsError(
            f"diagnose_sources: what is true is known of rendered datasets ({', '.join(RENDERED)}), not of "
            f"{dataset}: take truth out, or {dataset} out of `diagnose`"
        )
    if "fusion" in sources and not gives_reliabilities(model.fusion, model.width):
        raise ParamsError(
            f"diagnose_sources: {model.fusion['name']!r} gives no reliabilities: set scales.{params.scale}."
            f"model.fusion.name to {', '.join(giving_reliabilities())}, or name other sources than fusion"
        )


def _check_setting(params: Params, setting: Setting) -> None:
    from mindgap.data import RENDERED
    from mindgap.parts.augment.images import AUGMENTATIONS

    where = f"scales.{setting.scale}"
    entries = params.at_scale.recipe[setting.dataset]
    regime = setting.regime if setting.regime in entries else "all"
    recipe = f"{where}.recipe.{setting.dataset}.{regime}"
    pick(AUGMENTATIONS, setting.recipe.augmentation, f"{recipe}.augmentation", AUGMENTATIONS_AT)
    pick(params.at_scale.prepare, setting.dataset, "dataset", f"{where}.prepare")
    training = dict.fromkeys(Training.model_fields, f"{where}.training")
    training |= dict.fromkeys(entries[regime].own_training, recipe)
    _check_learning(setting, where, recipe, training)
    if setting.dataset not in RENDERED:  # how many samples it has is known when it is prepared
        return
    size, needed = params.at_scale.render.train_size, setting.budget.needed
    if needed > size:
        raise ParamsError(
            f"{where}.budget.{setting.dataset}.{setting.regime} needs {needed} training "
            f"samples (initial + validation + (rounds - 1) x acquisition), but {where}."
            f"render.train_size is {size}: raise it, or ask for fewer"
        )
    classes, tested = pairing_asked(params, setting.dataset).num_classes, params.at_scale.render.test_size
    if tested < classes:
        raise ParamsError(
            f"{where}.render.test_size is {tested}, but {setting.dataset} has {classes} classes, and each "
            f"needs a sample in the test set: raise it, or lower label_values in {where}.prepare."
            f"{setting.dataset}"
        )


def _check_learning(setting: Setting, where: str, recipe: str, training: Mapping[str, str]) -> None:
    """What no single parameter shows: a warm-up without an end, batches in which every modality sits out, a
    batch of one sample where none may sit out. `training`: where each of its keys is said.
    """
    epochs, warmup = setting.recipe.epochs, setting.training.warmup_epochs
    if warmup >= epochs:
        raise ParamsError(
            f"{training['warmup_epochs']}.warmup_epochs is {warmup:g}, but {recipe} has {epochs} epochs, of "
            f"which none would have the learning rate: lower warmup_epochs, or raise epochs"
        )
    least = setting.model.min_present
    if least > setting.recipe.batch_size:
        raise ParamsError(
            f"{where}.model.min_present is {least}, but {recipe} has a batch_size of "
            f"{setting.recipe.batch_size}: no modality would ever train; lower the one, or raise the other"
        )
    budget, size = setting.budget, setting.recipe.batch_size
    draws_of = Recipe.of(setting.recipe, setting.training).draws_per_epoch
    draws = draws_of(budget.initial)
    if least > draws:
        raise ParamsError(
            f"{where}.model.min_present is {least}, but an epoch of {where}.budget.{setting.dataset}."
            f"{setting.regime} has {draws} samples: no modality would train on the start set; lower "
            f"min_present, or raise initial or {training['min_samples_per_epoch']}.min_samples_per_epoch"
        )
    labelled = (budget.initial + k * budget.acquisition for k in range(budget.rounds))
    alone = next((n for n in map(draws_of, labelled) if n % size == 1), None)
    if alone and setting.model.absent == "zeros":
        raise ParamsError(
            f"{recipe}.batch_size is {size}, so of an epoch of {alone} samples one is left for the last "
            f"batch, and where {where}.model.absent is zeros its batch statistics are needed: take another "
            f"batch_size"
        )
