"""Where runs come from: what one table may not mix is refused, with a run of each side named."""

import json

import pandas as pd
import pytest

from mindgap.core.records import CURVE_COLUMNS, provenance_json
from mindgap.results.curves import Selection
from mindgap.results.provenance import read_origins
from mindgap.results.reading import ReportError

SELECTION = Selection("tiny", ["missing"], ["low"], ["random", "bald"], ["none"], [0, 1])


def record(query: str, seed: int, round: int = 0, **changes) -> dict:
    setting = {"scale": "tiny", "model": {"width": 8, "head_dropout": 0.5}, "recipe": {"epochs": 2}}
    made = {
        "commit": "c1",
        "device": "cpu",
        "versions": {"torch": "2"},
        "data": "d" * 64,
        "numerics": "n" * 64,
    }
    made |= {"code": query * 8, "settings": {"setting": setting, "query_settings": {"of": query}}}
    cell = {"dataset": "missing", "regime": "low", "mitigation": "none", "query": query, "seed": seed}
    made |= changes
    return {
        "run": f"{query}{seed}".ljust(32, "0"), "cell": cell, "round": round, "provenance": made,
        "seconds": {"fit": 1800.0},
    }  # fmt: skip


def records(**changes) -> list[dict]:
    """Two methods, two seeds; `changes` are made to the last run."""
    made = [record(query, seed) for query in ("random", "bald") for seed in (0, 1)]
    return [*made[:-1], record("bald", 1, **changes)]


def origins(folder, made) -> list:
    (folder / "missing-low.json").write_text(provenance_json(made))
    rows = [{**one["cell"], "run": one["run"][:16]} for one in records()]
    return read_origins(folder, pd.DataFrame(rows).reindex(columns=CURVE_COLUMNS), SELECTION)


def test_origins_tell_what_runs_share_and_where_they_ran(tmp_path):
    (one,) = origins(
        tmp_path, [*records(commit="c2", device="H200"), record("bald", 1, round=1, device="H200")]
    )
    assert (one.dataset, one.regime, one.runs, one.data, one.numerics) == (
        "missing",
        "low",
        4,
        "d" * 64,
        "n" * 64,
    )
    assert (one.commits, one.devices, one.versions) == (["c1", "c2"], ["H200", "cpu"], ["torch 2"])
    assert one.settings["none", "bald"]["setting"]["recipe"] == {"epochs": 2}


def test_settings_stand_once_under_their_digest():
    made = json.loads(provenance_json(records()))
    assert len(made["runs"]) == 4
    assert len(made["settings"]) == 2
    assert provenance_json(records()) == provenance_json(records())


def test_rounds_from_before_settings_of_the_data_were_kept_belong_with_later_ones(tmp_path):
    data = {"render": {"image_size": 32}, "prepare": {"absence": {}}}
    later = record("bald", 1)["provenance"]["settings"] | {"data": data}
    (one,) = origins(tmp_path, records(settings=later))
    # One digest of the data, so one way of making it.
    assert [made["data"] for made in one.settings.values()] == [data, data]


def test_rounds_of_the_store_that_do_not_tell_of_their_data_are_completed():
    data = {"render": {"image_size": 32}, "prepare": {"absence": {}}}
    later = record("bald", 1)["provenance"]["settings"] | {"data": data}
    made = json.loads(provenance_json(records(settings=later), data))
    assert len(made["settings"]) == 2  # one for each method
    assert all(settings["data"] == data for settings in made["settings"].values())
    assert {run["settings"] for run in made["runs"].values()} == set(made["settings"])


SETTING = {"scale": "tiny", "model": {"width": 9, "head_dropout": 0.5}, "recipe": {"epochs": 2}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": "e" * 64},
            r"the data of run bald100000000000 \(missing, low, bald, none, seed 1\) is not that",
        ),
        (
            {"numerics": "m" * 64},
            "the code of the numerics of run bald1.* random00.*: mmmmmmmmmmmm and nnnnnnnnnnnn",
        ),
        ({"code": "other"}, "the code of run bald1.* is not that of run bald0"),
        (
            {"settings": {"setting": SETTING, "query_settings": {"of": "bald"}}},
            "settings of run bald1.*bald0",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(tmp_path, changes, message):
    with pytest.raises(ReportError, match=message) as error:
        origins(tmp_path, records(**changes))
    assert "with one checkout (dvc repro)" in str(error.value)


def test_methods_of_one_table_share_all_but_dropout(tmp_path):
    without = {"scale": "tiny", "model": {"width": 8, "head_dropout": 0.0}, "recipe": {"epochs": 2}}
    longer = {**without, "recipe": {"epochs": 3}}

    def of_bald(setting):
        settings = {"setting": setting, "query_settings": {"of": "bald"}}
        return [
            record("random", 0),
            record("random", 1),
            *(record("bald", s, settings=settings) for s in (0, 1)),
        ]

    assert len(origins(tmp_path, of_bald(without))) == 1
    with pytest.raises(ReportError, match=r"the setting of run bald0.*recipe\.epochs is 3 and 2"):
        origins(tmp_path, of_bald(longer))


def test_a_file_that_does_not_tell_is_named_with_the_mend(tmp_path):
    with pytest.raises(
        ReportError, match=r"run bald100000000000 \(missing, low, bald, none, seed 1\) comes from"
    ):
        origins(tmp_path, records()[:-1])
    whole = provenance_json(records())
    for text, message in (
        ("{}", "no record of provenance"),
        (whole[:-9], "half written or not JSON"),
        (whole.replace('"numerics"', '"numeric"'), "runs.bald000000000000.numerics: Field required"),
    ):
        (tmp_path / "missing-low.json").write_text(text)
        rows = pd.DataFrame([{**one["cell"], "run": one["run"][:16]} for one in records()])
        with pytest.raises(ReportError, match=message) as error:
            read_origins(tmp_path, rows, SELECTION)
        assert "dvc repro -f -s acquire@missing-low" in str(error.value)
    (tmp_path / "missing-low.json").unlink()
    with pytest.raises(ReportError, match="is not there"):
        read_origins(tmp_path, rows, SELECTION)


def test_curves_are_those_that_were_written_with_their_provenance(tmp_path):
    table, file = tmp_path / "curves/missing-low.csv", tmp_path / "provenance/missing-low.json"
    for path in (table, file):
        path.parent.mkdir()
    rows = pd.DataFrame([{**one["cell"], "run": one["run"][:16]} for one in records()])
    text, told = "balanced_accuracy\n0.5\n", provenance_json(records(), curves="balanced_accuracy\n0.5\n")

    def verified() -> bool:
        return read_origins(file.parent, rows, SELECTION)[0].verified

    file.write_text(told)
    for same in (text, text.replace("\n", "\r\n")):
        table.write_bytes(same.encode())
        assert verified()
    file.write_text(provenance_json(records()))
    assert not verified()
    file.write_text(told)
    table.write_text(text.replace("5", "6"))
    with pytest.raises(
        ReportError, match=r"curves/missing-low.csv is not what was written with .*: dvc repro -f -s acquire"
    ):
        verified()
    file.write_text(told.replace("1800.0", "1700.0", 1))
    with pytest.raises(ReportError, match=r"missing-low.json .*it was changed after it was written"):
        verified()
