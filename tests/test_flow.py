"""What data stages dropped: counted, written, checked, and shown."""

from dataclasses import replace

import pandas as pd
import pytest

from mindgap.data.flow import Flow
from mindgap.results.curves import read_curve_file
from mindgap.results.expectations import ExpectationFailed, validate_dataset
from mindgap.results.flow import flow_parts, read_flow, skipped_reason
from mindgap.results.reading import ReportError
from share_raw import share_raw
from test_report import SELECTION, report_of
from test_sources import PREPARED, prepare


def example() -> Flow:
    flow = Flow()
    flow.start("images", "read", 100)
    flow.start("texts", "read", 90)
    flow.step("images", "opened", excluded={"no image": 3, "too small": 0}, repaired={"truncated": 2})
    flow.step("texts", "cleaned")
    return flow


def test_a_flow_is_a_chain_per_part():
    flow = example()
    assert flow.left("images") == 97
    lines = [(r["reason"], r["rows_in"], r["excluded"], r["repaired"], r["rows_out"]) for r in flow.rows[2:5]]
    assert lines == [("no image", 100, 3, 0, 97), ("too small", 97, 0, 0, 97), ("truncated", 97, 0, 2, 97)]
    with pytest.raises(ValueError, match=r"images, x: 98 of 97 rows cannot be excluded \(all\)"):
        flow.step("images", "x", excluded={"all": 98})
    with pytest.raises(ValueError, match="flow of 'labs' has no start"):
        flow.left("labs")


def test_it_is_read_as_it_was_written(tmp_path):
    example().write(tmp_path / "flow.csv")
    flow = read_flow(tmp_path / "flow.csv")
    assert [(p["name"], p["first"], p["last"]) for p in flow_parts(flow)] == [
        ("images", "100", "97"),
        ("texts", "90", "90"),
    ]
    assert skipped_reason(flow) == ""
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ReportError, match=r"lacks the columns part, .*dvc repro -f -s prepare@other"):
        read_flow(tmp_path / "other.csv")
    with pytest.raises(ReportError, match=r"gone\.csv is not there"):
        read_flow(tmp_path / "gone.csv")
    for read, name in ((read_flow, "mimic.csv"), (read_curve_file, "mimic-low.csv")):
        with pytest.raises(ReportError, match="run `dvc repro` in data/mimic, then `mindgap publish mimic`"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("column", "finding"), [("rows_out", "multicolumn_sum_to_equal"), ("rows_in", "in_set")]
)
def test_a_count_that_does_not_add_up_fails_the_suite(tmp_path, column, finding):
    folder = prepare("share", share_raw(tmp_path / "raw", per_class=20), tmp_path / "share")
    frame = pd.read_csv(folder / "flow.csv", keep_default_na=False)
    frame.loc[2, column] -= 1
    frame.to_csv(folder / "flow.csv", index=False)
    with pytest.raises(ExpectationFailed, match=f"table share: flow: .*\n(.*\n)*.*{finding}"):
        validate_dataset(folder, PREPARED, tmp_path / "pages")


def test_the_page_shows_flows_and_what_was_skipped(tmp_path):
    example().write(tmp_path / "flow.csv")
    selection = replace(
        SELECTION,
        datasets=("missing",),
        mitigations=("moddrop",),
        flows={"missing": read_flow(tmp_path / "flow.csv")},
        skipped={"food101": "data/raw/food101 lacks images: put them there <research>"},
    )
    report_of(tmp_path / "reports", selection)
    page = (tmp_path / "reports/index.html").read_text()
    assert "images 100 → 97, texts 90 → 90" in page
    assert '<td class="text">no image</td><td>100</td><td>3</td><td>0</td><td>97</td>' in page
    assert "<b>Food101</b>: data/raw/food101 lacks images: put them there &lt;research&gt;" in page
