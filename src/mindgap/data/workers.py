"""Work of the data stages on all cores: fresh processes that load nothing they do not need."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Start workers that do not import the program they serve: it would cost each of them seconds (torch)."""
    main = sys.modules["__main__"]
    hidden = {name: main.__dict__.pop(name) for name in ("__spec__", "__file__") if name in main.__dict__}
    main.__spec__ = None
    try:
        yield
    finally:
        del main.__spec__
        main.__dict__.update(hidden)


def map_processes(function: Callable, tasks: list, workers: int) -> Iterator:
    """Results in the order of the tasks, from fresh processes; from this one if one worker is enough."""
    workers = min(workers, len(tasks))
    if workers <= 1:
        yield from map(function, tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        with _hidden_main():
            results = pool.map(function, tasks)
        yield from results


def usable_cores() -> int:
    """Cores this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
