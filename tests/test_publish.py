"""What may leave a credentialed dataset's project: accuracies over many samples, and rounded counts."""

import pytest

from mindgap.base.errors import MindGapError
from mindgap.core.records import CURVE_COLUMNS, provenance_json
from mindgap.data.flow import Flow
from mindgap.data.storage import FORMAT
from mindgap.results.flow import read_flow
from mindgap.stages.paths import CURVES, FLOW, PROVENANCE, places
from mindgap.stages.publish import publish_stage
from small_project import params_in
from spoilt import spoil_meta

CURVE = f"{','.join(CURVE_COLUMNS)}\n" + ",".join(["0.5"] * len(CURVE_COLUMNS)) + "\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder in which MIMIC has run: what publishing reads of it."""
    monkeypatch.chdir(tmp_path)
    where = places("mimic")
    for folder in (where.prepared, where.curves):
        folder.mkdir(parents=True)
    (where.prepared / "meta.json").write_text("{}")
    spoil_meta(where.prepared, format=FORMAT, sizes={"test": 94})
    flow = Flow()
    flow.start("admissions", "admissions", 275)
    flow.step("admissions", "labs", {"too few labs": 4, "none at all": 6})
    flow.write(where.flow / "mimic.csv")
    (where.curves / "mimic-low.csv").write_text(CURVE)
    where.provenance.mkdir()
    (where.provenance / "mimic-low.json").write_text(provenance_json([]))
    return tmp_path


def test_curves_leave_as_they_are_and_counts_rounded_to_tens(project, capsys):
    publish_stage(params_in(project), "mimic")
    assert (CURVES / "mimic-low.csv").read_text() == CURVE
    assert (PROVENANCE / "mimic-low.json").read_text() == provenance_json([])
    counts = [(row["rows_in"], row["excluded"], row["rows_out"]) for row in read_flow(FLOW / "mimic.csv")]
    assert counts == [("280", "0", "280"), ("280", "0", "270"), ("270", "10", "260")]
    assert capsys.readouterr().out.count("look at it, then commit it") == 3


def test_what_could_tell_of_single_patients_stays(project):
    where, params = places("mimic"), params_in(project)
    flow = (where.flow / "mimic.csv").read_text()
    for file, text, message in (
        (where.flow / "mimic.csv", flow.replace("too few", "of 10000032 too few"), "patient's number"),
        (where.curves / "mimic-low.csv", CURVE.replace("ece", "subject_id"), "other columns.*subject_id"),
    ):
        before = file.read_text()
        file.write_text(text)
        with pytest.raises(MindGapError, match=message):
            publish_stage(params, "mimic")
        assert not FLOW.exists()
        file.write_text(before)
    spoil_meta(where.prepared, sizes={"test": 49})
    with pytest.raises(MindGapError, match="has 49 test samples"):
        publish_stage(params, "mimic")
    with pytest.raises(MindGapError, match="share is open"):
        publish_stage(params, "share")
    with pytest.raises(MindGapError, match="unknown 'mimik'"):
        publish_stage(params, "mimik")
