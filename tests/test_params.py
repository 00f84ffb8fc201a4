import copy
from pathlib import Path

import pytest
import yaml

from mindgap.params import Params, ParamsError, check_params, load_params

ROOT = Path(__file__).parents[1]
RAW = yaml.safe_load((ROOT / "params.yaml").read_text())


@pytest.fixture
def load(tmp_path):
    """Params from the shipped file with `changes` ("a.b.c": value) made to it."""

    def make(changes=None, text=None) -> Params:
        raw = copy.deepcopy(RAW)
        for key, value in (changes or {}).items():
            *folders, last = key.split(".")
            block = raw
            for folder in folders:
                block = block[folder]
            if value is None:
                del block[last]
            else:
                block[last] = value
        path = tmp_path / "params.yaml"
        path.write_text(text or yaml.safe_dump(raw))
        return load_params(path)

    return make


def test_the_shipped_parameters_can_be_run_at_both_scales(load):
    check_params(load())
    datasets = ["missing", "unique", "synergy"]
    check_params(load({"scale": "paper", "dataset": datasets, "regime": ["low", "mid", "high"]}))


def test_every_mistake_is_named_at_once_with_its_key(load):
    with pytest.raises(ParamsError) as error:
        load({"seedz": [0], "scales.tiny.model.width": "64", "scales.tiny.training.momentum": None})
    message = str(error.value)
    assert "seedz: unknown parameter" in message
    assert "scales.tiny.model.width: Input should be a valid integer (given: '64')" in message
    assert "scales.tiny.training.momentum: missing" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": ["mising"]}, r"dataset: unknown 'mising'; known .*missing, unique, synergy, trio"),
        ({"regime": ["lo"]}, r"regime: unknown 'lo'; known in scales\.tiny\.budget\.missing: .*low"),
        ({"scale": "huge"}, r"scale: unknown 'huge'; known in scales: paper, tiny"),
        ({"query": ["entropi"]}, r"query: unknown 'entropi'; known .*entropy"),
        ({"query": ["random", "random"]}, r"query: random is listed twice"),
        ({"query": []}, r"query: List should have at least 1 item"),
        ({"seeds": ["0"]}, r"seeds\.0: Input should be a valid integer"),
        ({"mitigation": ["modrop"]}, r"mitigation: unknown 'modrop'; known .*moddrop"),
        ({"query_settings.bald": {"pases": 3}}, r"query_settings\.bald\.pases"),
        ({"query_settings.bald": {"passes": "3"}}, r"query_settings\.bald\.passes"),
        ({"mitigation_settings.moddrop": {"rate": 1.5}}, r"mitigation_settings\.moddrop\.rate"),
        ({"mitigation_settings.moddrop": {"rte": 0.5}}, r"rte"),
        ({"scales.tiny.model.encoder.image.name": "tinny"}, r"image\.name: unknown 'tinny'; known .*tiny"),
        ({"scales.tiny.model.fusion_heads": 5}, r"fusion_heads \(5\) must divide width"),
        ({"scales.tiny.model.head_dropout": 0.0}, r"'bald' needs dropout .*head_dropout"),
        ({"scales.tiny.recipe.missing.all.augmentation": "basik"}, r"recipe\.missing: unknown 'basik'"),
        ({"scales.tiny.render.color_jitter": 0.2}, r"color_jitter"),
        ({"scales.tiny.model.encoder.tokens": {"name": "bag", "widht": 3}}, r"encoder\.tokens: .*widht"),
        ({"scales.tiny.model.encoder.scent": {"name": "nose"}}, r"encoder: unknown 'scent'; known .*signal"),
        ({"scales.tiny.prepare.share.canonical": "yes"}, r"prepare\.share: canonical"),
        ({"scales.tiny.prepare.mimic.release": "3.0"}, r"prepare\.mimic: release is '3\.0'; known: "),
        ({"dataset": ["mimic"]}, r"'mimic' is credentialed .*`dvc repro` in data/mimic"),
        ({"published": ["share"]}, r"published: 'share' is open"),
        ({"scales.tiny.prepare.missing.absence": {"scarce": 0.9}}, r"prepare\.missing: absence.*scarce"),
        (
            {"scales.tiny.render.train_size": 200},
            r"scales\.tiny\.budget\.\w+\.low needs \d+ training samples .*render\.train_size is 200",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_with_key_and_mend(load, changes, message):
    with pytest.raises(ParamsError, match=message):
        check_params(load(changes))


def test_a_key_given_twice_is_refused(load):
    with pytest.raises(ParamsError, match="'scale' is given twice"):
        load(text="scale: tiny\nscale: paper\n")


def test_a_file_that_is_no_yaml_or_not_there_is_named(load, tmp_path):
    with pytest.raises(ParamsError, match=r"params\.yaml is not valid YAML"):
        load(text="scale: [tiny")
    with pytest.raises(ParamsError, match=r"nowhere\.yaml is not here"):
        load_params(tmp_path / "nowhere.yaml")


def test_paper_scale_is_tables_5_and_6():
    paper = load_params(ROOT / "params.yaml").scales["paper"]
    table_6 = {
        ("missing", "share"): {
            "low": (50, 250, 50, 10), "mid": (250, 1250, 250, 10), "high": (1000, 5000, 1000, 10),
        },
        ("unique", "synergy", "mimic"): {
            "low": (500, 2500, 500, 10), "mid": (1000, 5000, 1000, 10), "high": (5000, 5000, 5000, 10),
        },
        ("food101",): {
            "low": (505, 2525, 505, 10), "mid": (1010, 5050, 1010, 10), "high": (5050, 5050, 5050, 5),
        },
    }  # fmt: skip
    for datasets, regimes in table_6.items():
        for dataset in datasets:
            found = {
                r: (b.initial, b.validation, b.acquisition, b.rounds)
                for r, b in paper.budget[dataset].items()
            }
            assert found == regimes, dataset
    table_5 = {
        "missing": (60, 128, 0.1, 5e-4, "randaugmc"),
        "share": (200, 1024, 0.1, 5e-3, "randaugmc"),
        "unique": (60, 128, 0.1, 5e-4, "basic"),
        "synergy": (60, 128, 0.1, 5e-4, "basic"),
        "food101": (60, 128, 0.01, 5e-4, "randaugmc"),  # T5: 0.1, at which MiniLM diverges
    }
    for dataset, row in table_5.items():
        r = paper.recipe[dataset]["all"]
        assert (r.epochs, r.batch_size, r.learning_rate, r.weight_decay, r.augmentation) == row, dataset
    mimic = {k: (r.learning_rate, r.weight_decay, r.class_balanced) for k, r in paper.recipe["mimic"].items()}
    assert mimic == {"low": (0.01, 5e-5, True), "mid": (0.01, 5e-4, True), "high": (0.001, 5e-5, True)}
