"""What may be told of a credentialed dataset where others may read it, such as in SLURM's logs."""

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mindgap.base.errors import MindGapError
from mindgap.data import CREDENTIALED
from mindgap.stages.paths import places

LOG = ".mindgap/errors.log"  # in the dataset's own project, which neither git nor DVC takes
ID = re.compile(r"\d{8}")


@contextmanager
def kept_private(dataset: str) -> Iterator[None]:
    """An unforeseen error of a credentialed dataset is told without its message, which may quote a patient's
    data; message and traceback go to its LOG, which only its owner may read.

    Our own errors name rows and never quote them. The system's, such as a full disk, are told if no patient's
    id is in their paths.
    """
    if dataset not in CREDENTIALED:
        yield
        return
    try:
        yield
    except MindGapError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None and not ID.search(str(error)):
            raise
        log = Path(os.environ.get("DVC_ROOT", places(dataset).prepared.parent.parent)) / LOG
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a", encoding="utf-8", opener=_for_owner) as file:
            file.write(traceback.format_exc())
        last = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}"
        raise MindGapError(
            f"{what}: its words may quote a patient's data and are in {log} alone, which neither git nor DVC "
            f"takes; look there"
        ) from None


def _for_owner(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
