"""Share, Food101 and MIMIC from their raw files to their AULC tables, and what may leave a private project.

All with real DVC commands in a clone, on small raw folders made of real data.
"""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from clone import ROOT, Clone
from food101_raw import food101_raw
from mimic_raw import mimic_raw
from share_raw import share_raw
from ssh_server import ssh_server

pytestmark = pytest.mark.slow

MIMIC = "data/mimic"
OPEN = ["missing", "share", "food101"]


@pytest.fixture(scope="module")
def world(reproduced, tmp_path_factory) -> Clone:
    """A clone with all raw files in which both pipelines have run, and MIMIC's curves are published."""
    clone = reproduced.copied(tmp_path_factory.mktemp("world") / "clone")
    share_raw(clone.folder / "data/raw/share", per_class=20)
    food101_raw(clone.folder / "data/raw/food101", per_class_train=4, per_class_test=2)
    mimic_raw(clone.folder / MIMIC / "raw")
    clone.set(dataset=OPEN, published=["mimic"])
    clone.run("dvc", "repro", inside=MIMIC)
    clone.commit("MIMIC")
    clone.run("mindgap", "publish", "mimic")
    clone.run("dvc", "repro")
    clone.commit("Open data, and MIMIC's curves")
    return clone


@pytest.mark.parametrize("dataset", [*OPEN, "mimic"])
def test_every_dataset_reaches_its_aulc_table_and_shows_what_it_dropped(world, dataset):
    reports = world.folder / "reports"
    table = (reports / "tables" / f"{dataset}-moddrop.md").read_text()
    assert "Random" in table
    assert "BADGE" in table
    page = (reports / "index.html").read_text()
    assert f'id="{dataset}"' in page
    flow = (reports / "flow" / f"{dataset}.csv").read_text().splitlines()
    assert len(flow) > 3
    part = flow[1].split(",")[0]
    assert part in page
    assert "is skipped" not in page


def test_a_second_repro_has_nothing_to_do_and_git_holds_no_raw_file(world):
    for folder in (".", MIMIC):
        output = world.run("dvc", "repro", inside=folder)
        assert "Running stage" not in output
        assert "up to date" in output
    assert world.git("status", "--porcelain") == ""
    assert not [name for name in world.git("ls-files").splitlines() if "/raw/" in name]


def test_pages_of_checks_are_there_for_every_table(world):
    assert (world.folder / "reports/validation/flow-share.html").exists()
    assert list((world.folder / "reports/validation").glob("share_*-share.html"))
    assert list((world.folder / MIMIC / "reports/validation").glob("*-mimic.html"))


# -- what may leave


def private_numbers(clone: Clone) -> set[str]:
    """Subjects and admissions of the cohort, as text."""
    text = (clone.folder / MIMIC / "prepared/mimic/cohort.csv").read_text()
    return set(re.findall(r"\b[12]\d{7}\b", text))


def private_digests(clone: Clone) -> set[str]:
    """MD5 of all there is in the private project besides what git tracks, raw files and cache included."""
    tracked = set(clone.git("ls-files", MIMIC).splitlines())
    files = [path for path in (clone.folder / MIMIC).rglob("*") if path.is_file()]
    files = [path for path in files if str(path.relative_to(clone.folder)) not in tracked]
    assert len(files) > 100
    return {hashlib.md5(path.read_bytes()).hexdigest() for path in files if path.stat().st_size}


def assert_nothing_private(folder: Path, digests: set[str], numbers: set[str]) -> None:
    """No file there is one of the private project, by name or by content, or names a subject or admission."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert hashlib.md5(content).hexdigest() not in digests, path
        assert path.parent.name + path.name.removesuffix(".dir") not in digests, path
        found = set(re.findall(rb"(?<![\d.])[12]\d{7}(?![\d.])", content))
        assert not {number.decode() for number in found} & numbers, path


def holds(folder: Path, path: Path) -> bool:
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    return (folder / "files/md5" / md5[:2] / md5[2:]).exists()


PUSHES = [
    ("push",),
    ("push", "-r", "team"),
    ("push", "--all-commits"),
    ("push", "--run-cache"),
    ("push", "--all-commits", "--run-cache", "-r", "team"),
    ("exp", "push", "-r", "team", "--run-cache", "origin", "varied"),
    ("exp", "push", "-r", "team", "--run-cache", "origin", "varied-mimic"),
]


@pytest.fixture(scope="module")
def experiment(world, tmp_path_factory) -> Path:
    """A bare git remote `origin`; an experiment in each project: git has one list of both."""
    bare = tmp_path_factory.mktemp("origin") / "repository.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    world.git("remote", "add", "origin", str(bare))
    world.git("push", "-q", "origin", "HEAD:main")
    run = ("dvc", "exp", "run", "--temp", "-n")
    world.run(*run, "varied", "-S", "query=[random]", "acquire@food101-low")
    world.run(*run, "varied-mimic", "-S", "../../params.yaml:query=[random]", inside=MIMIC)
    return bare


@pytest.mark.parametrize("kind", ["local", "ssh"])
def test_no_form_of_push_sends_anything_of_mimic_to_a_shared_remote(world, experiment, tmp_path, kind):
    remote = tmp_path / "team"
    remote.mkdir()
    digests, numbers = private_digests(world), private_numbers(world)
    assert len(numbers) > 300
    with ssh_server() as port:
        url = str(remote) if kind == "local" else f"ssh://tester@127.0.0.1:{port}{remote}"
        before = None
        for inside in (".", MIMIC):
            # Someone has made the team's remote the private project's default too: still nothing.
            world.dvc(("remote", "add", "--local", "-f", "-d", "team", url), inside=inside)
            for output in world.dvc(*PUSHES, expect=None, inside=inside):
                # It came to its end, or to the remote that is nowhere, and to no other error.
                assert re.search("up to date|pushed|uploaded|name-a-private-remote", output), output
            assert_nothing_private(remote, digests, numbers)
            files = {path for path in remote.rglob("*") if path.is_file()}
            assert before in (None, files)
            before = files
    assert holds(remote, world.folder / "data/prepared/missing/train.rare.npy")
    assert holds(remote, world.folder / "data/prepared/share/train.mnist.npy")
    assert holds(remote, world.folder / "data/runs/food101-low/records.jsonl")
    assert_nothing_private(experiment, digests, numbers)


def test_a_check_of_leaks_that_finds_them(world, tmp_path):
    digests, numbers = private_digests(world), private_numbers(world)
    cohort = world.folder / MIMIC / "prepared/mimic/cohort.csv"
    for text in (cohort.read_bytes(), b"subject " + min(numbers).encode() + b"\n"):
        (tmp_path / "leak").write_bytes(text)
        with pytest.raises(AssertionError):
            assert_nothing_private(tmp_path, digests, numbers)


def test_a_team_with_access_can_name_a_private_remote_of_its_own(world, tmp_path):
    remote, modify = tmp_path / "private", ("remote", "modify", "--local")
    assert "name-a-private-remote" in world.dvc(("push",), expect=1, inside=MIMIC)[0]
    named, unset = (*modify, "private", "url", str(remote)), (*modify, "--unset", "private", "url")
    assert "pushed" in world.dvc(named, ("push",), unset, inside=MIMIC)[1]
    assert holds(remote, world.folder / MIMIC / "prepared/mimic/cohort.csv")


def test_the_private_project_shares_nothing_by_its_settings():
    dvc = yaml.safe_load((ROOT / MIMIC / "dvc.yaml").read_text())
    outs = [out for stage in dvc["stages"].values() for out in stage["outs"]]
    assert all(next(iter(out.values()))["remote"] == "private" for out in outs)
    persist = [any("persist" in str(out) for out in stage["outs"]) for stage in dvc["stages"].values()]
    assert all(persist), "without it, the run cache has records that --run-cache sends to any remote"
    assert not any(key in stage for stage in dvc["stages"].values() for key in ("metrics", "plots"))
    config = (ROOT / MIMIC / ".dvc/config").read_text()
    assert re.findall(r"url = (.*)", config) == ["/dev/null/name-a-private-remote"]
    assert "remote =" not in config
    root = (ROOT / "dvc.yaml").read_text()
    assert "data/mimic" not in root
    listed = subprocess.run(["git", "ls-files", MIMIC], cwd=ROOT, capture_output=True, text=True, check=True)
    allowed = {
        ".dvc/.gitignore",
        ".dvc/config",
        ".dvcignore",
        ".gitignore",
        "README.md",
        "dvc.lock",
        "dvc.yaml",
    }
    assert {name.removeprefix(f"{MIMIC}/") for name in listed.stdout.splitlines()} <= allowed


def test_git_tracks_nothing_private(world):
    digests, numbers = private_digests(world), private_numbers(world)
    for name in world.git("ls-files").splitlines():
        content = (world.folder / name).read_bytes()
        assert hashlib.md5(content).hexdigest() not in digests or not name.startswith(MIMIC), name
        if name.startswith(("reports/", MIMIC)):
            found = set(re.findall(r"(?<![\d.])[12]\d{7}(?![\d.])", content.decode(errors="replace")))
            assert not found & numbers, name


def test_published_curves_hold_accuracies_and_rounded_counts_only(world):
    flow = (world.folder / "reports/flow/mimic.csv").read_text().splitlines()[1:]
    assert all(int(count) % 10 == 0 for line in flow for count in line.split(",")[-4:])


# -- teammates, and people without the files


@pytest.mark.parametrize("kind", ["local", "ssh"])
def test_a_teammates_clone_pulls_and_recomputes_nothing(world, experiment, tmp_path, kind):
    remote, folder = tmp_path / "team", tmp_path / "mate"
    with ssh_server() as port:
        url = str(remote) if kind == "local" else f"ssh://tester@127.0.0.1:{port}{remote}"
        world.dvc(("remote", "add", "--local", "-f", "-d", "team", url), ("push",))
        subprocess.run(["git", "clone", "-q", "-b", "main", str(experiment), str(folder)], check=True)
        mate = Clone.at(folder)
        add = ("remote", "add", "--local", "-d", "team", url)
        *_, output = mate.dvc(add, ("pull",), ("repro",))
    assert "Running stage" not in output
    assert mate.git("status", "--porcelain") == ""
    for name in ("data/prepared/share/train.mnist.npy", "data/prepared/food101/train.text.npy"):
        assert (folder / name).read_bytes() == (world.folder / name).read_bytes()
    assert not (folder / "data/raw").exists()
    # Of the private project there is nothing but how to run it, and what to get.
    if kind == "local":
        output = mate.run("dvc", "repro", "extract_mimic", inside=MIMIC)
        assert "mimic is skipped" in output
        assert "credentialed" in output


def test_a_dataset_without_its_files_is_skipped_with_one_line_until_they_are_there(reproduced, tmp_path):
    clone = reproduced.copied(tmp_path / "clone")
    clone.set(dataset=["missing", "share"])
    output = clone.run("dvc", "repro")
    lines = [line for line in output.splitlines() if line.startswith("share is skipped: ")]
    assert lines
    assert "data/raw/share" in lines[0]
    assert "CC BY-SA" in lines[0]
    page = (clone.folder / "reports/index.html").read_text()
    assert "data/raw/share" in page
    assert 'id="missing"' in page
    assert 'id="share"' not in page
    assert "Running stage" not in clone.run("dvc", "repro")
    share_raw(clone.folder / "data/raw/share", per_class=20)
    clone.run("dvc", "repro", "-f", "-s", "prepare@share")
    # What follows is as for any other data that changed.
    stale = json.loads(clone.run("dvc", "status", "--json"))
    assert set(stale) == {"train@share-low", "acquire@share-low", "report"}
