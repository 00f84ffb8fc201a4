"""Runs benchmarks at their small size in one process, which loads torch once.

python benchmarks_in_turns.py OUT NAME ...: OUT becomes {name: {"shown": text, "error": traceback or null,
"wrote": whether a result changed}} as JSON.
"""

import contextlib
import io
import json
import os
import runpy
import sys
import traceback
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def results() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (BENCHMARKS / "results").iterdir()}


def run(name: str) -> dict[str, str | bool | None]:
    """A benchmark as the main module; the working folder and the environment are as before afterwards."""
    before = results()
    script, shown, error = BENCHMARKS / f"{name}.py", io.StringIO(), None
    here, environment = Path.cwd(), dict(os.environ)
    sys.argv = [str(script), "--quick"]
    try:
        with contextlib.redirect_stdout(shown):
            runpy.run_path(str(script), run_name="__main__")
    except (Exception, SystemExit):
        error = traceback.format_exc()
    os.chdir(here)
    os.environ.clear()
    os.environ.update(environment)
    return {"shown": shown.getvalue(), "error": error, "wrote": results() != before}


if __name__ == "__main__":
    out, *names = sys.argv[1:]
    sys.path[0] = str(BENCHMARKS)
    Path(out).write_text(json.dumps({name: run(name) for name in names}))
