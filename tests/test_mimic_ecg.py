"""Twelve-lead ECGs: two ways of reading that agree, leads by name, what is not usable, scaling."""

import errno
import os
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from mimic_raw import FILE_LEADS, quiet_wfdb, recordings, write_ecg
from mindgap.data.errors import DataError
from mindgap.data.flow import Flow
from mindgap.data.mimic import ecg
from mindgap.data.mimic.ecg import LEADS, Unusable, read_ecg, scaled_ecg
from mindgap.data.mimic.raw import Checks
from shared_data import shared

NOON = datetime(2150, 6, 1, 12)


def samples(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3000, 3000, (5000, 12)).astype(np.int16)


def test_both_ways_read_every_real_recording_alike():
    assert len(recordings()) == 50
    for stem in recordings():
        assert ecg.released_form(stem.with_suffix(".hea").read_text())
        names, x_TL = ecg.read_by_wfdb(stem)
        x_LT = read_ecg(stem)
        assert x_LT.shape == (12, 5000)
        assert x_LT.dtype == np.float32
        for lead, x_T in zip(LEADS, x_LT, strict=True):
            assert np.array_equal(x_T, x_TL[:, names.index(lead)].astype(np.float32))


def test_what_was_written_anew_is_the_recording_it_came_from():
    for stem in sorted(path.with_suffix("") for path in shared("ecg-wfdb").glob("*.hea"))[::7]:
        assert ecg.released_form(stem.with_suffix(".hea").read_text()) is None
        again = next(path for path in recordings() if path.name == stem.name)
        assert np.abs(read_ecg(stem) - read_ecg(again)).max() <= 0.5 / 200 + 1e-6


def test_leads_go_by_name_in_whatever_order_the_header_has_them(tmp_path):
    x_TL = samples()
    write_ecg(tmp_path / "1", x_TL)
    swapped = (*FILE_LEADS[:4], "aVL", "aVF", *reversed(FILE_LEADS[6:]))
    write_ecg(tmp_path / "2", x_TL[:, [FILE_LEADS.index(lead) for lead in swapped]], swapped)
    assert ecg.released_form((tmp_path / "2.hea").read_text()).names == list(swapped)
    assert np.array_equal(read_ecg(tmp_path / "1"), read_ecg(tmp_path / "2"))
    assert np.array_equal(read_ecg(tmp_path / "1")[4], x_TL[:, FILE_LEADS.index("aVL")] / np.float32(200))


@pytest.mark.parametrize("gain", [100.0, 1000.0])
def test_another_gain_is_read_by_wfdb(tmp_path, gain):
    x_TL = samples()
    write_ecg(tmp_path / "1", x_TL, LEADS, gain=gain)
    assert ecg.released_form((tmp_path / "1.hea").read_text()) is None
    assert np.allclose(read_ecg(tmp_path / "1"), x_TL.T / gain, atol=1e-6)


def alter_header(stem, old, new):
    path = stem.with_suffix(".hea")
    path.write_text(path.read_text().replace(old, new))


def cut(stem):
    data = stem.with_suffix(".dat")
    data.write_bytes(data.read_bytes()[:-2400])


def altered(change):
    """Samples that their header was not written for."""

    def spoil(stem):
        data = stem.with_suffix(".dat")
        x_TL = np.fromfile(data, "<i2").reshape(5000, 12)
        change(x_TL)
        x_TL.tofile(data)

    return spoil


def unmeasured(stem):
    """A sample that was not measured when the header was written."""
    gain = 200.0 if "200.0" in stem.with_suffix(".hea").read_text() else 400.0
    x_TL = samples()
    x_TL[17, 3] = ecg.INVALID
    write_ecg(stem, x_TL, gain=gain)


def signals(stem, change):
    """Change the fields of each lead's line."""
    lines = stem.with_suffix(".hea").read_text().splitlines()
    lines[1:13] = [" ".join(change(line.split())) for line in lines[1:13]]
    stem.with_suffix(".hea").write_text("\n".join(lines))


def shorten_signals(stem, fields):
    signals(stem, lambda found: [*found[:fields], found[-1]])


def resign(stem, first=0, checksum=0):
    """First values and checksums that differ by so much."""
    signals(stem, lambda f: [*f[:5], str(int(f[5]) + first), str(int(f[6]) + checksum), *f[7:]])


def as_folder(path):
    path.unlink()
    path.mkdir()


def as_link(path, target):
    path.unlink()
    path.symlink_to(target)


def as_pipe(path):
    path.unlink()
    os.mkfifo(path)


FAULTS = {
    "no header": (lambda stem: stem.with_suffix(".hea").unlink(), ecg.MISSING),
    "no data": (lambda stem: stem.with_suffix(".dat").unlink(), ecg.MISSING),
    "data short": (cut, ecg.SHORT),
    "empty header": (lambda stem: stem.with_suffix(".hea").write_text(""), ecg.UNREADABLE),
    "binary header": (lambda stem: stem.with_suffix(".hea").write_bytes(b"\xff\xfe\x00"), ecg.UNREADABLE),
    "another subject": (lambda stem: alter_header(stem, "_id>: 0", "_id>: 10000099"), ecg.OTHER_SUBJECT),
    "a lead twice": (lambda stem: alter_header(stem, " 0 V6", " 0 V5"), ecg.OTHER_LEADS),
    "unknown lead": (lambda stem: alter_header(stem, " 0 V6", " 0 V7"), ecg.OTHER_LEADS),
    "another rate": (lambda stem: alter_header(stem, " 12 500 5000", " 12 250 5000"), ecg.OTHER_LENGTH),
    "another length": (lambda stem: alter_header(stem, " 12 500 5000", " 12 500 2500"), ecg.OTHER_LENGTH),
    "not measured": (unmeasured, ecg.NOT_MEASURED),
    "header a folder": (lambda stem: as_folder(stem.with_suffix(".hea")), ecg.NOT_READ),
    "data a folder": (lambda stem: as_folder(stem.with_suffix(".dat")), ecg.NOT_READ),
    "header a link to itself": (lambda stem: as_link(stem.with_suffix(".hea"), "1.hea"), ecg.NOT_READ),
    "data a link to itself": (lambda stem: as_link(stem.with_suffix(".dat"), "1.dat"), ecg.NOT_READ),
    "data a link to nothing": (lambda stem: as_link(stem.with_suffix(".dat"), "2.dat"), ecg.MISSING),
    "header from a bad disk": (
        lambda stem: as_link(stem.with_suffix(".hea"), "/proc/self/mem"),
        ecg.NOT_READ,
    ),
    "header a pipe": (lambda stem: as_pipe(stem.with_suffix(".hea")), ecg.NOT_READ),
    "data a pipe": (lambda stem: as_pipe(stem.with_suffix(".dat")), ecg.NOT_READ),
    "second half zero": (altered(lambda x_TL: x_TL[2500:].fill(0)), ecg.ALTERED),
    "bytes exchanged": (altered(lambda x_TL: x_TL.byteswap(inplace=True)), ecg.ALTERED),
    "a sample that is no longer measured": (
        altered(lambda x_TL: x_TL[17, 3:4].fill(ecg.INVALID)),
        ecg.ALTERED,
    ),
    "one sample": (altered(lambda x_TL: x_TL[4000:4001].__iadd__(1)), ecg.ALTERED),
    "one bit": (altered(lambda x_TL: x_TL[4321, 7:8].__ixor__(1 << 14)), ecg.ALTERED),
    "shifted": (altered(lambda x_TL: np.copyto(x_TL, np.roll(x_TL, 1, axis=0))), ecg.ALTERED),
    "leads exchanged": (altered(lambda x_TL: np.copyto(x_TL, x_TL[:, [1, 0, *range(2, 12)]])), ecg.ALTERED),
    "first value": (lambda stem: resign(stem, first=1), ecg.ALTERED),
    "checksum": (lambda stem: resign(stem, checksum=1), ecg.ALTERED),
    "no lead name": (lambda stem: alter_header(stem, " 0 V6", " 0"), ecg.OTHER_LEADS),
    "no checksum": (lambda stem: shorten_signals(stem, 6), ecg.UNVERIFIED),
    "no first value": (lambda stem: shorten_signals(stem, 5), ecg.UNVERIFIED),
    "unknown format": (lambda stem: alter_header(stem, ".dat 16 ", ".dat 17 "), ecg.OTHER_FORM),
    "skewed": (lambda stem: alter_header(stem, ".dat 16 ", ".dat 16:3 "), ecg.OTHER_FORM),
    "two samples a frame": (lambda stem: alter_header(stem, ".dat 16 ", ".dat 16x2 "), ecg.OTHER_FORM),
    "another gain of one lead": (
        lambda stem: signals(
            stem, lambda f: [*f[:2], f[2].replace("00.0", "0.0") * (f[-1] == "V6") or f[2], *f[3:]]
        ),
        ecg.OTHER_FORM,
    ),
    "another zero of one lead": (
        lambda stem: signals(
            stem, lambda f: [*f[:2], f[2].replace("(0)", "(7)") if f[-1] == "V6" else f[2], *f[3:]]
        ),
        ecg.OTHER_FORM,
    ),
    "segments": (
        lambda stem: stem.with_suffix(".hea").write_text("1/2 12 500 5000\na 2500\nb 2500\n"),
        ecg.OTHER_FORM,
    ),
    "data elsewhere": (lambda stem: alter_header(stem, "1.dat", "../1.dat"), ecg.UNREADABLE),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("gain", [200.0, 400.0])  # read with numpy, read by wfdb
def test_what_cannot_be_used_says_why(tmp_path, fault, gain):
    write_ecg(tmp_path / "1", samples(), gain=gain)
    spoil, reason = FAULTS[fault]
    spoil(tmp_path / "1")
    with pytest.raises(Unusable, match=f"^{reason}$"):
        read_ecg(tmp_path / "1", 0)


@pytest.mark.parametrize("gain", [200.0, 400.0])
@pytest.mark.parametrize("checksum", [2**16, -(2**16)])
def test_a_checksum_may_be_written_with_or_without_sign(tmp_path, gain, checksum):
    write_ecg(tmp_path / "1", samples(), gain=gain)
    expected = read_ecg(tmp_path / "1")
    resign(tmp_path / "1", checksum=checksum)
    assert np.array_equal(read_ecg(tmp_path / "1"), expected)


@pytest.mark.parametrize("gain", [200.0, 400.0])
def test_a_file_that_one_may_not_read_is_unusable_and_too_few_handles_are_no_fault_of_it(
    tmp_path, monkeypatch, gain
):
    """Root may read everything: the system's answer is set here."""
    write_ecg(tmp_path / "1", samples(), gain=gain)
    opened, codes = os.open, [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE]

    def denied(name, *args, **kwargs):
        if str(name).endswith(".dat"):
            code = codes.pop(0)
            raise OSError(code, os.strerror(code), name)
        return opened(name, *args, **kwargs)

    monkeypatch.setattr(os, "open", denied)
    for _ in codes[:-1]:
        with pytest.raises(Unusable, match=ecg.NOT_READ):
            read_ecg(tmp_path / "1")
    with pytest.raises(OSError, match="Too many open files"):
        read_ecg(tmp_path / "1")


@pytest.mark.parametrize("form", ["80", "212", "24", "32"])
def test_other_formats_are_verified_too(tmp_path, form):
    leads, rng = list(FILE_LEADS), np.random.default_rng(0)
    fields = {
        "fs": 500,
        "units": ["mV"] * 12,
        "sig_name": leads,
        "fmt": [form] * 12,
        "write_dir": str(tmp_path),
    }
    fields |= {"adc_gain": [50.0] * 12, "baseline": [0] * 12}
    x_TL = rng.integers(-100, 100, (5000, 12))
    with quiet_wfdb() as wfdb:
        wfdb.wrsamp("1", d_signal=x_TL, **fields)
    expected = x_TL[:, [leads.index(lead) for lead in LEADS]].T / 50
    assert np.allclose(read_ecg(tmp_path / "1"), expected, atol=1e-6)
    data = tmp_path / "1.dat"
    data.write_bytes(data.read_bytes()[:30000] + bytes(len(data.read_bytes()) - 30000))
    with pytest.raises(Unusable, match=f"{ecg.ALTERED}|{ecg.NOT_MEASURED}"):
        read_ecg(tmp_path / "1")


def test_no_nonsense_in_a_header_is_more_than_an_unusable_record(tmp_path):
    """Bytes of a header are exchanged and left out."""
    write_ecg(tmp_path / "1", samples(), gain=400.0)
    header, reasons = (tmp_path / "1.hea").read_bytes(), set()
    rng = np.random.default_rng(0)
    for _ in range(150):
        content = bytearray(header)
        for _ in range(rng.integers(1, 4)):
            place = int(rng.integers(len(content) - 30))  # of the comment not
            content[place : place + int(rng.integers(0, 3))] = rng.choice(
                list(b" /()x:+0129-ab\n\xe9"), 2
            ).tobytes()[::8]
        (tmp_path / "1.hea").write_bytes(content)
        try:
            x_LT = read_ecg(tmp_path / "1")
        except Unusable as reason:
            reasons.add(str(reason))
        else:
            assert x_LT.shape == (12, 5000)
    assert len(reasons) > 4
    assert reasons <= {*ecg.REASONS}


def test_the_header_of_another_record(tmp_path):
    for name in ("1", "2"):
        write_ecg(tmp_path / name, samples())
    (tmp_path / "2.dat").unlink()
    (tmp_path / "2.hea").replace(tmp_path / "1.hea")
    with pytest.raises(Unusable, match=f"^{ecg.OTHER_SUBJECT}$"):
        read_ecg(tmp_path / "1")


def test_a_lead_that_is_missing(tmp_path):
    write_ecg(tmp_path / "1", samples()[:, :11], FILE_LEADS[:11])
    with pytest.raises(Unusable, match=ecg.OTHER_LEADS):
        read_ecg(tmp_path / "1")


def test_data_elsewhere_than_beside_the_header_are_not_opened(tmp_path):
    write_ecg(tmp_path / "1", samples())
    alter_header(tmp_path / "1", "1.dat", "../1.dat")
    assert ecg.released_form((tmp_path / "1.hea").read_text()) is None


def test_scaling_jointly_and_by_lead():
    x_LT = samples().T / np.float32(200)
    joint, lead = scaled_ecg(x_LT, 5000, "joint"), scaled_ecg(x_LT, 5000, "lead")
    assert joint.dtype == np.float16
    assert (joint.min(), joint.max()) == (-1, 1)
    assert (lead.min(axis=1) == -1).all()
    assert (lead.max(axis=1) == 1).all()
    expected = 2 * (x_LT - x_LT.min()) / (x_LT.max() - x_LT.min()) - 1
    assert np.abs(joint - expected).max() < 5e-4


def test_fewer_samples_are_means_of_blocks():
    x_LT = np.tile(np.arange(5000, dtype=np.float32) // 1250, (12, 1))  # four steps
    assert np.allclose(scaled_ecg(x_LT, 4, "joint")[0], [-1, -1 / 3, 1 / 3, 1], atol=1e-3)
    fast_LT = np.tile(np.float32([0, 1]), (12, 2500))
    fast_LT[0, :5] = 2
    assert np.ptp(scaled_ecg(fast_LT, 1000, "joint")[0, 2::2]) == 0  # 250 Hz is averaged, not aliased


@pytest.mark.parametrize(("scaling", "usable"), [("joint", True), ("lead", False)])
def test_a_flat_lead_spoils_scaling_by_lead_only(scaling, usable):
    x_LT = samples().T.astype(np.float32)
    x_LT[5] = 0
    if usable:
        assert scaled_ecg(x_LT, 5000, scaling).max() == 1
    else:
        with pytest.raises(Unusable, match=ecg.CONSTANT):
            scaled_ecg(x_LT, 5000, scaling)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_flat_recording_is_not_usable(value):
    with pytest.raises(Unusable, match=ecg.CONSTANT):
        scaled_ecg(np.full((12, 5000), value, np.float32), 1000, "joint")


def test_candidates_are_in_the_window_and_the_earliest_comes_first():
    hour = timedelta(hours=1)
    admissions = pl.DataFrame({"subject_id": [1, 2, 1], "admittime": [NOON, NOON, NOON + 30 * hour]})
    times = [(1, 7, 3), (1, 6, 3), (1, 5, -24), (1, 4, 24.001), (2, 3, -24.001), (1, 2, 20)]
    records = pl.DataFrame(
        [(subject, study, NOON + h * hour, f"files/{study}") for subject, study, h in times],
        schema=["subject_id", "study_id", "ecg_time", "path"],
        orient="row",
    )
    found = ecg.find_candidates(records, admissions, 24)
    assert list(found.select("admission", "study_id").iter_rows()) == [
        (0, 5),
        (0, 6),
        (0, 7),
        (0, 2),
        (2, 2),
        (2, 4),
    ]


@pytest.fixture
def folder(tmp_path):
    """Five records; 1 is flat, 2 is short."""
    for study in range(5):
        write_ecg(tmp_path / str(study), np.zeros((5000, 12), np.int16) if study == 1 else samples(study))
    cut(tmp_path / "2")
    return tmp_path


def write(folder, tries, target, workers=1, samples=500):
    """First usable records of admissions, each with the studies to try."""
    rows = [(i, 0, study, str(study)) for i, studies in enumerate(tries) for study in studies]
    columns = {"admission": pl.UInt32, "subject_id": pl.Int32, "study_id": pl.Int32, "path": pl.String}
    candidates = pl.DataFrame(rows, columns, orient="row")
    choice = {"samples": samples, "scaling": "joint", "workers": workers, "progress": False}
    return ecg.write_ecgs(candidates, len(tries), folder, target, **choice)


def test_the_next_record_is_tried_where_the_first_is_not_usable(folder):
    taken_N, unusable = write(folder, [[1, 2, 3, 4], [4], [1], []], folder / "ecg.npy")
    assert taken_N.tolist() == [3, 4, -1, -1]
    assert list(unusable.iter_rows()) == [(1, "1", ecg.CONSTANT), (2, "2", ecg.SHORT)]
    x_NLT = np.load(folder / "ecg.npy")
    assert x_NLT.shape == (4, 12, 500)
    assert np.array_equal(x_NLT[0], scaled_ecg(read_ecg(folder / "3"), 500, "joint"))
    assert not x_NLT[2:].any()


def test_any_number_of_workers_writes_the_same_bytes(folder):
    tries = [[i % 5, 3] for i in range(200)]
    results = []
    for workers in (1, 2):
        taken_N, unusable = write(folder, tries, folder / f"ecg{workers}.npy", workers)
        results.append((taken_N.tolist(), unusable.rows(), (folder / f"ecg{workers}.npy").read_bytes()))
    assert results[0] == results[1]


def test_an_unfinished_download_is_told_from_stray_records(folder):
    _, unusable = write(folder, [[1], [2], [3]], folder / "ecg.npy")
    records = pl.DataFrame({"line": [2, 3, 4], "study_id": [1, 2, 3]})
    path = folder / "record_list.csv"
    message = rf"record_list.csv: 1 of 10 records that were tried cannot be used \({ecg.SHORT} 1\), such as "
    with pytest.raises(DataError, match=message + rf"{ecg.SHORT} in line 3: download them again"):
        ecg.check_faulty(unusable, records, 10, path, Checks())
    flat = unusable.filter(pl.col("reason") == ecg.CONSTANT)
    with pytest.raises(
        DataError, match=rf"1 of 1 .+ \({ecg.CONSTANT} 1\), .+ line 2: put the files of MIMIC-"
    ):
        ecg.check_faulty(flat, records, 1, path, Checks())
    checks = Checks()
    ecg.check_faulty(unusable, records, 20, path, checks)
    assert checks.rows[0]["found"] == 0.1


def test_the_flow_counts_each_reason(folder):
    _, unusable = write(folder, [[1, 2, 3, 4], [4]], folder / "ecg.npy")
    flow = Flow()
    flow.start("ecg records", "window", 6)
    ecg.fill_flow(flow, unusable, 2)
    counts = {row["reason"]: row["excluded"] for row in flow.rows}
    assert (counts[ecg.CONSTANT], counts[ecg.SHORT], counts[ecg.MISSING]) == (1, 1, 0)
    assert flow.left("ecg records") == 2


def test_wfdb_itself_finds_the_fixture_in_order():
    with quiet_wfdb() as wfdb:
        header = wfdb.rdheader(str(recordings()[0]))
    assert header.sig_name == list(FILE_LEADS)
    assert (header.fs, header.sig_len, set(header.adc_gain), set(header.baseline)) == (
        500,
        5000,
        {200.0},
        {0},
    )
