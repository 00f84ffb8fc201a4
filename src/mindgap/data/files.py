"""Reading raw files, which may be anything: a folder, a pipe, a link to nowhere, more than memory holds."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mindgap.data.errors import DataError

# Not of a file but of the machine: nothing is wrong with what was to be read.
OF_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
MENDS = {
    errno.ENOENT: "is a link to nothing: link it anew, or mount what it leads to",
    errno.ELOOP: "is a link that leads back to itself: link it anew",
    errno.EISDIR: "is a folder: put the file itself there",
    errno.ENOTDIR: "is a file, or lies below one, where a folder belongs: put the folder there",
    errno.EINVAL: "is no regular file: put the file itself there",
    errno.EACCES: "is not yours to read: `chmod u+r`, or ask who owns it",
    errno.EFBIG: "is many times larger than the original: put the original there",
}


def open_regular(path: Path) -> BinaryIO:
    """A regular file, opened to be read; OSError for all else, at once: a pipe would wait for its writer."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, os.strerror(code), str(path))
    return os.fdopen(descriptor, "rb")


def unreadable(path: Path, error: OSError) -> DataError:
    """What hinders the reading of a file, and the mend."""
    other = f"cannot be read ({error.strerror or error}): look at its disk or share, or copy it again"
    return DataError(f"{path} {MENDS.get(error.errno, other)}")


def is_there(path: Path) -> bool:
    """OSError for what cannot be reached, or is or lies below a link to nowhere: it was to be there."""
    try:
        path.lstat()
    except FileNotFoundError:
        next(folder for folder in path.parents if os.path.lexists(folder)).stat()
        return False
    path.stat()
    return True


def read_whole(path: Path, largest: int) -> bytes:
    """All of a regular file of at most `largest` bytes; OSError where that is not to be had."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > largest:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read()


@contextmanager
def readable(path: Path, mend: str) -> Iterator[None]:
    """A DataError for an OSError of what is read inside: it names the file and what to do about it.

    `path` where the error names none; `mend` for a file that is not there.
    """
    try:
        yield
    except OSError as error:
        if error.errno in OF_MACHINE:
            raise
        path = Path(error.filename or path)
        if error.errno == errno.ENOENT and not path.is_symlink():
            raise DataError(f"{path} is missing: {mend}") from None
        raise unreadable(path, error) from None


def read_bytes(path: Path, mend: str, largest: int) -> bytes:
    """All of a file; DataError where it is missing, cannot be read or has more than `largest` bytes."""
    with readable(path, mend):
        return read_whole(path, largest)
