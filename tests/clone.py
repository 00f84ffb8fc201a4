"""A checkout of the project in a folder of its own, cut down to seconds, with commands run as a user does."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from small_project import small
from warm import programs

ROOT = Path(__file__).parents[1]
KEPT = yaml.safe_load((ROOT / "dvc.yaml").read_text())["vars"][0]["kept"]
# What a run makes: a clone makes its own.
MADE = (
    "dvc.lock",
    "data/mimic/dvc.lock",
    *(
        f"reports/{name}/"
        for name in ("curves", "flow", "provenance", "search", "tables", "figures", "plots")
    ),
    *(f"reports/{folder}/" for folder in KEPT),
)
# A command that takes longer goes with all that it began.
LIMIT_SECONDS = 400


class Clone:
    """A checkout with small parameters and a store of its own."""

    def __init__(self, folder: Path, **changes):
        self.folder = folder
        for name in self.git("ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines():
            if (ROOT / name).is_file() and not name.startswith(MADE):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes((ROOT / name).read_bytes())
        self.set(**changes)
        self._leave_out("report_kept")
        self.git("init", "-q")
        self.commit("Start")

    @classmethod
    def at(cls, folder: Path) -> "Clone":
        """The checkout that is there already."""
        clone = cls.__new__(cls)
        clone.folder = folder
        return clone

    def copied(self, folder: Path) -> "Clone":
        """A copy with all that was made in it."""
        return self.at(shutil.copytree(self.folder, folder, symlinks=True))

    def _leave_out(self, stage: str) -> None:
        """A stage that a clone of seconds does without; what follows it stays as it is."""
        path = self.folder / "dvc.yaml"
        pipeline = yaml.safe_load(path.read_text())
        del pipeline["stages"][stage]
        path.write_text(yaml.safe_dump(pipeline, sort_keys=False))

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        name = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org")
        command = ["git", *name, *arguments]
        return subprocess.run(
            command, cwd=cwd or self.folder, check=True, capture_output=True, text=True
        ).stdout

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", message)

    def set(self, **changes) -> None:
        raw = small(**changes)
        # Rounds long enough for a kill to fall into one.
        raw["scales"]["tiny"]["recipe"]["missing"]["all"]["epochs"] = 12
        (self.folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))

    @staticmethod
    def environment(workers: int | None, warm: bool) -> dict[str, str]:
        # As a user has it: bytecode is written too, which must not count as a change of code.
        left_out = ("DVC_", "MINDGAP_", "COV_", "PYTHON")
        ours = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
        places = [*([programs()] if warm else []), Path(sys.executable).parent, ours["PATH"]]
        path = os.pathsep.join(map(str, places))
        git = {"GIT_AUTHOR_NAME": "T", "GIT_AUTHOR_EMAIL": "t@example.org"}
        git |= {"GIT_COMMITTER_NAME": "T", "GIT_COMMITTER_EMAIL": "t@example.org"}
        ours |= {} if workers is None else {"MINDGAP_WORKERS": str(workers)}
        return {**ours, **git, "PATH": path, "DVC_NO_ANALYTICS": "1", "MINDGAP_OFFLINE": "1"}

    def start(
        self, *command: str, inside: str = ".", workers: int | None = None, warm: bool = False
    ) -> subprocess.Popen:
        """A command begun in a folder of the clone, its stages with so many workers, or a user's default."""
        return subprocess.Popen(
            command,
            cwd=self.folder / inside,
            env=self.environment(workers, warm),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(
        self,
        *command: str,
        expect: int | None = 0,
        inside: str = ".",
        workers: int | None = 1,
        warm: bool = True,
    ) -> str:
        """What a command printed, run in a folder of the clone; an expected exit status is checked.

        Stages have one worker by default, as another process would load torch once more. `workers`: as many,
        or None for as many as a user's have. `warm`: libraries are loaded already (tests/warm.py).
        """
        with self.start(*command, inside=inside, workers=workers, warm=warm) as process:
            try:
                output, _ = process.communicate(timeout=LIMIT_SECONDS)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        assert expect is None or (process.returncode != 0) == (expect != 0), output
        return output

    def dvc(self, *commands: Sequence[str], expect: int | None = 0, inside: str = ".") -> list[str]:
        """What DVC commands printed, run in turn as a user does."""
        return [self.run("dvc", *command, expect=expect, inside=inside) for command in commands]

    def tables(self) -> dict[str, bytes]:
        folder = self.folder / "reports"
        files = [*(folder / "tables").iterdir(), *(folder / "curves").iterdir(), folder / "metrics.json"]
        return {path.name: path.read_bytes() for path in files}
