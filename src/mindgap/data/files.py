"""Reading raw files, which may be anything: a folder, a pipe, a link to nowhere, more than memory holds."""

import errno
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mindgap.data.errors import DataError

MENDS = {
    errno.EACCES: "let this user read it",
    errno.EPERM: "let this user read it",
    errno.EISDIR: "move the folder away and put the file in its place",
    errno.ENOTDIR: "put the folder that belongs there in its place",
    errno.ELOOP: "the link leads to itself; put the file itself in its place",
    errno.EFBIG: "put the original in its place",
    errno.EINVAL: "put a file in its place",
}
OTHERWISE = "copy it again, or look after the disk that it lies on"


def is_there(path: Path) -> bool:
    """OSError for what cannot be reached or is a link to nowhere: it was to be there, and is not absent."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    path.stat()
    return True


def read_whole(path: Path, largest: int) -> bytes:
    """All of a regular file of at most `largest` bytes; OSError where that is not to be had."""
    size = check_regular(path)
    if size > largest:
        raise OSError(errno.EFBIG, f"{size:,} bytes, more than {largest:,}", str(path))
    return path.read_bytes()


def check_regular(path: Path) -> int:
    """The size of a file; OSError for a pipe, a socket or a device, which could be waited for for ever."""
    found = path.stat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise OSError(errno.EINVAL, "a pipe, a socket or a device", str(path))
    return found.st_size


@contextmanager
def readable(path: Path, mend: str) -> Iterator[None]:
    """A DataError for an OSError of what is read inside: it names the file and what to do about it.

    `path` where the error names none; `mend` for a file that is not there.
    """
    try:
        yield
    except OSError as error:
        path = Path(error.filename or path)
        if error.errno == errno.ENOENT and path.is_symlink():
            message = f"{path} is a link to {path.readlink()}, which is not there: {mend}"
        elif error.errno == errno.ENOENT:
            message = f"{path} is missing: {mend}"
        else:
            message = (
                f"{path} cannot be read ({error.strerror or error}): {MENDS.get(error.errno, OTHERWISE)}"
            )
        raise DataError(message) from None


def read_bytes(path: Path, mend: str, largest: int) -> bytes:
    """All of a file; DataError where it is missing, cannot be read or has more than `largest` bytes."""
    with readable(path, mend):
        return read_whole(path, largest)
