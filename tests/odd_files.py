"""What may lie where a file is expected, and the eyes of another user."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What is said of each.
PLACES = {
    "folder": "is a folder: put the file itself there",
    "dangling": "is a link to nothing: link it anew, or mount what it leads to",
    "loop": "is a link that leads back to itself: link it anew",
    "pipe": "is no regular file: put the file itself there",
    "io": r"cannot be read \(Input/output error\): look at its disk or share, or copy it again",
    "huge": "is many times larger than the original: put the original there",
}
DENIED = "is not yours to read: `chmod u\\+r`, or ask who owns it"


def spoil_place(path: Path, how: str) -> None:
    """Put something else where a file is."""
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "dangling":
        path.symlink_to("nowhere")
    elif how == "loop":
        path.symlink_to(path)
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "io":
        path.symlink_to("/proc/self/mem")  # it opens, and reading it fails with EIO
    elif how == "huge":
        with path.open("wb") as file:
            file.truncate(2**41)


@contextmanager
def other_user() -> Iterator[None]:
    """As a user who may read what all may read; the tests may run as root."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
