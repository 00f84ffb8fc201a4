"""`mindgap watch`: the runs under way, from another terminal or a machine that shares the folder."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from mindgap.base.progress import running_table
from mindgap.core.records import store_root
from mindgap.data import CREDENTIALED
from mindgap.engine.status import Status, statuses
from mindgap.stages.paths import places

NOTHING = "nothing is under way here"


def watch_stage(once: bool) -> None:
    """Show what the commands of this project do until Ctrl-C; once where nobody looks, or if so asked."""
    console = Console()
    if once or not console.is_terminal:
        return console.print(_view(), soft_wrap=True)
    with Live(_view(), console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(1.0)
                live.update(_view(), refresh=True)
        except KeyboardInterrupt:
            return None


def _view() -> RenderableType:
    stores = dict.fromkeys([store_root(), *(places(name).store for name in CREDENTIALED)])
    told: list[str] = []
    found = {path: status for store in stores for path, status in statuses(store, told.append).items()}
    return view(found, told)


def view(found: Mapping[Path, Status], told: Sequence[str] = ()) -> RenderableType:
    """Each command with its runs; one that died with what to do about it; last what is told besides."""
    parts: list[RenderableType] = [] if found else [Text(NOTHING)]
    for path, status in found.items():
        head = f"{status.title}: {status.done}/{status.total} rounds"
        who = f"process {status.pid} on {status.host}"
        if status.died:
            age = max(0.0, time.time() - status.written)
            parts.append(
                Text(
                    f"{head}; its command died ({who}, no word for {age:.0f} s): repeat it, finished rounds "
                    f"are kept. To forget it delete {path}",
                    style="red",
                )
            )
        else:
            now = status.waits or f"{len(status.running)} under way"
            parts += [Text(f"{head}; {who}, {now}"), running_table(status.running)]
    return Group(*parts, *map(Text, told))
