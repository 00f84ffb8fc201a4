"""Fetching against a real server of this machine: nothing half ever lies where a file is expected."""

import os
import random
import resource
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mindgap.data import fetch as fetching
from mindgap.data.errors import DataError
from mindgap.data.fetch import FetchFailed, RemoteFile, fetch, hindrances, md5_of

CONTENT = random.Random(0).randbytes(5 * fetching.BLOCK // 2)


class Mirror(BaseHTTPRequestHandler):
    """/good sends the content, /wrong as many other bytes, /cut stops midway, /stall never goes on."""

    def do_GET(self):
        self.server.asked.append(self.path)
        what = self.path.rsplit("/", 1)[-1]
        if what not in ("good", "unsized", "wrong", "cut", "stall"):
            self.send_error(404)
            return
        body = CONTENT[::-1] if what == "wrong" else CONTENT
        self.send_response(200)
        if what != "unsized":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if what in ("cut", "stall") else body)
        if what == "stall":
            self.wfile.flush()
            self.server.released.wait(10)

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(monkeypatch):
    """The server; `mirror.url(name)` is one of its files."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("MINDGAP_OFFLINE", raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.asked, server.released = [], threading.Event()
    server.url = lambda name: f"http://127.0.0.1:{server.server_port}/{name}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def dead() -> str:
    """A URL where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/good"


def remote(folder: Path, *urls: str, md5: str = md5_of(CONTENT)) -> RemoteFile:
    return RemoteFile(folder / "raw" / "digits.gz", urls, md5)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["good", "unsized"])
def test_a_file_arrives_whole(mirror, tmp_path, name):
    file = remote(tmp_path, mirror.url(name))
    fetch([file], progress=False)
    assert file.path.read_bytes() == CONTENT
    assert left_in(tmp_path) == ["digits.gz"]


def test_the_second_mirror_serves_when_the_first_is_dead(mirror, dead, tmp_path):
    file = remote(tmp_path, dead, mirror.url("absent"), mirror.url("cut"), mirror.url("good"))
    fetch([file], progress=False)
    assert file.path.read_bytes() == CONTENT
    assert mirror.asked == ["/absent", "/cut", "/good"]
    assert left_in(tmp_path) == ["digits.gz"]


def test_other_bytes_are_named_and_deleted(mirror, dead, tmp_path):
    wrong = md5_of(CONTENT[::-1])
    file = remote(tmp_path, mirror.url("wrong"), dead)
    with pytest.raises(DataError, match="gave other bytes") as error:
        fetch([file], progress=False)
    message = str(error.value)
    for part in (str(file.path), mirror.url("wrong"), f"MD5 {wrong}, not {file.md5}", "run again, or put"):
        assert part in message
    assert left_in(tmp_path) == []


def test_a_mirror_with_other_bytes_gives_way_to_a_good_one(mirror, tmp_path):
    file = remote(tmp_path, mirror.url("wrong"), mirror.url("good"))
    fetch([file], progress=False)
    assert file.path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent", "HTTP Error 404: Not Found"),
        ("cut", f"the connection ended after {len(CONTENT) // 2} of {len(CONTENT)} bytes"),
        ("stall", "timed out"),
    ],
)
def test_what_does_not_arrive_leaves_nothing(mirror, tmp_path, monkeypatch, name, reason):
    monkeypatch.setattr(fetching, "STALL_SECONDS", 0.3)
    with pytest.raises(FetchFailed, match=r"digits\.gz could not be fetched") as error:
        fetch([remote(tmp_path, mirror.url(name))], progress=False)
    assert f"{mirror.url(name)}: {reason}" in str(error.value)
    assert left_in(tmp_path) == []


def test_every_mirror_is_named_with_its_reason(mirror, dead, tmp_path):
    with pytest.raises(FetchFailed) as error:
        fetch([remote(tmp_path, dead, mirror.url("absent"))], progress=False)
    assert f"{dead}: [Errno 111] Connection refused; {mirror.url('absent')}: HTTP Error 404" in str(
        error.value
    )


def test_the_file_that_was_there_survives_a_failure(mirror, tmp_path):
    file = remote(tmp_path, mirror.url("wrong"))
    file.path.parent.mkdir()
    file.path.write_bytes(b"mine")
    with pytest.raises(DataError):
        fetch([file], progress=False)
    assert file.path.read_bytes() == b"mine"


def test_a_folder_that_cannot_be_written_is_no_fault_of_a_mirror(mirror, tmp_path):
    (tmp_path / "raw").write_bytes(b"a file where the folder belongs")
    with pytest.raises(DataError, match=r"raw cannot be written \(.*\): make room, or let this user write"):
        fetch([remote(tmp_path, mirror.url("good"))], progress=False)
    assert (tmp_path / "raw").read_bytes() == b"a file where the folder belongs"


def test_a_full_disk_is_no_fault_of_a_mirror(mirror, tmp_path):
    """The kernel refuses a file of this size; it says so as it does where a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(CONTENT) // 2, before[1]))
    try:
        with pytest.raises(DataError, match=r"part cannot be written \(File too large\): make room"):
            fetch([remote(tmp_path, mirror.url("good"))], progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert left_in(tmp_path) == []


def test_parts_of_killed_processes_go_and_those_of_living_ones_stay(mirror, tmp_path):
    file = remote(tmp_path, mirror.url("good"))
    file.path.parent.mkdir()
    killed, living = (file.path.with_name(f".digits.gz.{pid}.part") for pid in (123, 124))
    killed.write_bytes(b"half")
    living.write_bytes(b"half")
    os.utime(killed, (time.time() - 3600,) * 2)
    fetch([file], progress=False)
    assert left_in(tmp_path) == [living.name, "digits.gz"]


def test_an_interrupt_leaves_nothing(mirror, tmp_path, monkeypatch):
    class Interrupted:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def reach(self, _):
            raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "Progress", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch([remote(tmp_path, mirror.url("good"))])
    assert left_in(tmp_path) == []


def test_offline_never_tries(mirror, tmp_path, monkeypatch):
    monkeypatch.setenv("MINDGAP_OFFLINE", "1")
    with pytest.raises(FetchFailed, match="MINDGAP_OFFLINE is set"):
        fetch([remote(tmp_path, mirror.url("good"))], progress=False)
    assert mirror.asked == []
    assert left_in(tmp_path) == []


def test_a_proxy_of_the_environment_is_asked(mirror, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", f"127.0.0.1:{mirror.server_port}")
    file = remote(tmp_path, "http://mirror.invalid/good")
    fetch([file], progress=False)
    assert file.path.read_bytes() == CONTENT
    assert mirror.asked == ["http://mirror.invalid/good"]


def test_a_host_that_does_not_answer_costs_its_seconds_once(tmp_path):
    """A full queue of connections: further ones get no answer at all."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        with socket.create_connection(address):
            begin = time.monotonic()
            found = hindrances([address, ("nowhere.invalid", 80), ("127.0.0.1", 1)], seconds=0.3)
            assert time.monotonic() - begin < 1
    assert found[address] in ("timed out", "no answer within 0.3 s")
    assert all(found.values())


def test_a_machine_without_network_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.delenv("MINDGAP_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    begin = time.monotonic()
    with pytest.raises(FetchFailed, match=r"https://nowhere\.invalid/a: .+; http://nowhere\.invalid/b: .+"):
        fetch([remote(tmp_path, "https://nowhere.invalid/a", "http://nowhere.invalid/b")], progress=False)
    assert time.monotonic() - begin < fetching.CONNECT_SECONDS + 1
    assert left_in(tmp_path) == []
