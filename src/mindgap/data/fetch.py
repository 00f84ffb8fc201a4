"""Fetching a raw file that is absent: from the first mirror that gives the bytes its checksum asks for.

A file appears under its name only when it is whole. A machine without network is told so within seconds: all
hosts are tried at once first, in threads, since neither a name server nor a second address of a host keeps to
the timeout of a connection.
"""

import hashlib
import http.client
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, build_opener, getproxies, proxy_bypass

from mindgap.base.errors import MindGapError
from mindgap.base.progress import Progress
from mindgap.data.errors import DataError

CONNECT_SECONDS = 5.0  # for all hosts together
STALL_SECONDS = 20.0  # without a byte from a host that did answer
STALE_SECONDS = 600.0  # without a byte in a part of a file: whoever wrote it is gone
BLOCK = 1 << 20

Address = tuple[str, int]


class FetchFailed(MindGapError):  # noqa: N818 - no fault of the data: there may be no network
    """No mirror gave a file; the message says why for each."""


@dataclass(frozen=True)
class RemoteFile:
    """Where a file shall lie, where it comes from, and the MD5 (hex) of what comes."""

    path: Path
    urls: tuple[str, ...]
    md5: str


def fetch(files: Sequence[RemoteFile], *, progress: bool = True) -> None:
    """Put each file in its place; MINDGAP_OFFLINE=1 never tries.

    FetchFailed where no mirror gave one, DataError where one gave other bytes than the checksum asks for.
    """
    if os.environ.get("MINDGAP_OFFLINE", "0") not in ("", "0"):
        raise FetchFailed("MINDGAP_OFFLINE is set")
    hindered = hindrances({_address(url) for file in files for url in file.urls})
    for file in files:
        _fetch(file, hindered, progress)


def md5_of(content: bytes) -> str:
    """What the originals' authors and mirrors state; it finds damage, and is no defence against malice."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def hindrances(addresses: Iterable[Address], seconds: float = CONNECT_SECONDS) -> dict[Address, str]:
    """What hindered a connection to each address, "" where there was one; known after `seconds` at most."""
    found = dict.fromkeys(addresses, f"no answer within {seconds:g} s")

    def connect(address: Address) -> None:
        try:
            socket.create_connection(address, timeout=seconds).close()
            found[address] = ""
        except OSError as error:
            found[address] = str(error)

    # Daemons: a name server that never answers must not hold up the end of the program.
    threads = [threading.Thread(target=connect, args=(address,), daemon=True) for address in found]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return dict(found)


def _address(url: str) -> Address:
    """Whom to connect to for a URL: its host, or the proxy that the environment names."""
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.netloc):
        parts = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    return parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]


def _fetch(file: RemoteFile, hindered: dict[Address, str], progress: bool) -> None:
    failures, wrong = [], None
    for url in file.urls:
        reason = hindered[_address(url)]
        try:
            if not reason:
                _download(url, file, progress)
                return
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
        except DataError as error:
            wrong = wrong or error
            continue
        failures.append(f"{url}: {reason}")
    if wrong:
        raise wrong
    raise FetchFailed(f"{file.path.name} could not be fetched ({'; '.join(failures)})")


def _download(url: str, file: RemoteFile, progress: bool) -> None:
    """The file in its place, or an error and nothing: neither it nor a part of it."""
    # Two processes may fetch the same file: each writes its own.
    part = file.path.with_name(f".{file.path.name}.{os.getpid()}.part")
    with _writable(part.parent):
        part.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(file.path)
        part.touch()
    try:
        found = _stream(url, part, file.path.name if progress else "")
        if found != file.md5:
            raise DataError(
                f"{file.path}: {url} gave other bytes: MD5 {found}, not {file.md5}; they were deleted: "
                "run again, or put the file there by hand"
            )
        with _writable(file.path):
            part.replace(file.path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    """What keeps this machine from writing is no fault of a mirror."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror or error}): make room, or let this user write there, "
            "or put the files there by hand"
        ) from None


def _remove_stale(path: Path) -> None:
    """Parts of processes that were killed: a living one writes every few seconds."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        if time.time() - part.stat().st_mtime > STALE_SECONDS:
            part.unlink(missing_ok=True)


def _stream(url: str, part: Path, title: str) -> str:
    """Write what a URL gives; its MD5. OSError where the server closes before all it announced has come."""
    digest, size = hashlib.md5(usedforsecurity=False), 0
    request = Request(url, headers={"User-Agent": "mindgap"})  # some servers refuse urllib's own
    with build_opener().open(request, timeout=STALL_SECONDS) as response, part.open("wb") as out:
        announced = response.length or 0
        bar = Progress(f"fetch {title}", announced >> 20, unit="MiB") if title else nullcontext()
        with bar as shown:
            while block := response.read(BLOCK):
                with _writable(part):
                    out.write(block)
                digest.update(block)
                size += len(block)
                if shown:
                    shown.reach(size >> 20)
    if announced and size != announced:
        raise OSError(f"the connection ended after {size} of {announced} bytes")
    return digest.hexdigest()
