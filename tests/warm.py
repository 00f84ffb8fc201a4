"""Commands whose libraries are loaded already: a server loads them once and forks one process a command.

A `mindgap` or a `dvc` loads torch, pandas or DVC for two to three seconds, and works for less than one.
`programs()` is a folder to put first in PATH: what is called `mindgap` and `dvc` there asks the server for a
fork, which has the caller's arguments, folder, environment and open files, runs the installed command, and
gives its exit status back. MindGap's own code is loaded by the fork, from where PYTHONPATH says.

What is about starting, or about what a kill leaves, takes the installed command itself.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from shutil import rmtree, which
from tempfile import mkdtemp
from typing import NoReturn

COMMANDS = ("mindgap", "dvc")
# What the commands load, and nothing of MindGap itself.
LIBRARIES = (
    "dvc.cli.parser",
    "dvc.repo.experiments",
    "dvc.repo.reproduce",
    "dvc_data.index",
    "great_expectations",
    "jinja2",
    "matplotlib.figure",
    "pandas",
    "pydantic",
    "scipy.stats",
    "sklearn.cluster",
    "sklearn.metrics",
    "torch",
    "torchvision.transforms",
    "typer",
)

# The caller's side. Its standard files go along; should it end early, so does its command.
CALLER = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = json.dumps(["{command}", sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(request).to_bytes(4)], [0, 1, 2])
    server.sendall(request)
    answer = server.recv(1)
sys.exit(answer[0] if answer else "the server of {command} is gone")
"""


@cache
def programs() -> Path:
    """A folder with the programs, whose server runs until this process ends."""
    folder = Path(mkdtemp(prefix="warm-"))
    address = str(folder / "socket")
    for command in COMMANDS:
        text = CALLER.format(python=sys.executable, address=address, command=command)
        (folder / command).write_text(text)
        (folder / command).chmod(0o755)
    left_out = ("MINDGAP_", "COV_", "PYTHON")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
    server = subprocess.Popen(
        [sys.executable, __file__, address],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert server.stdout.readline() == b"ready\n"
    server.stdout.close()

    @atexit.register
    def end() -> None:
        server.stdin.close()
        server.wait(timeout=30)
        rmtree(folder, ignore_errors=True)

    return folder


def received(connection: socket.socket) -> tuple[list, list[int]]:
    """A request and the three files that came with it."""
    size, files, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as stream:
        return json.loads(stream.read(int.from_bytes(size))), files


def next_command(listener: socket.socket) -> tuple[list, list[int]]:
    """Serve callers until there are no more tests; a forked process returns, with what it is to run."""
    running: dict[int, socket.socket] = {}
    ready = selectors.DefaultSelector()
    ready.register(listener, selectors.EVENT_READ)
    ready.register(sys.stdin, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.fileobj is sys.stdin:
                for process in running:
                    os.killpg(process, signal.SIGKILL)
                os._exit(0)
            elif key.fileobj is listener:
                connection, _ = listener.accept()
                request, files = received(connection)
                process = os.fork()
                with contextlib.suppress(PermissionError, ProcessLookupError):
                    os.setpgid(process, process)
                if process == 0:
                    for one in (*running.values(), connection, listener, ready):
                        one.close()
                    return request, files
                for file in files:
                    os.close(file)
                running[process] = connection
                ready.register(connection, selectors.EVENT_READ, process)
                ready.register(os.pidfd_open(process), selectors.EVENT_READ, process)
            elif key.data not in running:  # it ended in this turn
                continue
            elif key.fileobj is running[key.data]:  # the caller is gone
                ready.unregister(key.fileobj)
                os.killpg(key.data, signal.SIGKILL)
            else:
                connection = running.pop(key.data)
                _, status = os.waitpid(key.data, 0)
                ready.unregister(key.fileobj)
                os.close(key.fileobj)
                if connection in ready.get_map():
                    ready.unregister(connection)
                with connection, contextlib.suppress(OSError):
                    connection.sendall(bytes([os.waitstatus_to_exitcode(status) % 256]))


def run(request: list, files: list[int]) -> None:
    """The installed command, as in a process of its own."""
    command, arguments, folder, environment = request
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    gc.enable()
    random.seed()
    sys.modules["numpy"].random.seed()
    script = which(command, path=str(Path(sys.executable).parent))
    code = [Path(entry).absolute() for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:0] = map(str, [Path(script).parent, *code])
    sys.argv[:] = [script, *arguments]
    status = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        status = ended.code
    leave(status)


def leave(status: int | str | None) -> NoReturn:
    """End as the interpreter does, but keep the libraries in memory: to take them apart takes two seconds."""
    if isinstance(status, str):
        print(status, file=sys.stderr)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else bool(status))


if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen()
        del sys.path[0]  # the folder of the tests
        gc.disable()  # a million objects, none of which is garbage
        for library in LIBRARIES:
            importlib.import_module(library)
        assert not [name for name in sys.modules if name.split(".")[0] == "mindgap"]
        gc.freeze()
        print("ready", flush=True)
        asked = next_command(listener)
    run(*asked)
