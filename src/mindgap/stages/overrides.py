"""The parameters with changes as `dvc exp run -S` takes them, `key=value` in Hydra's grammar."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from mindgap.base.errors import ParamsError
from mindgap.base.yaml_file import read_mapping
from mindgap.core.params import Params, load_params

PARAMS = Path("params.yaml")


def overridden(changes: Sequence[str], path: Path = PARAMS) -> Params:
    """The parameters of a file with changes."""
    if not changes:
        return load_params(path)
    with tempfile.TemporaryDirectory() as folder:
        return write_overridden(changes, Path(folder, path.name), path)


def write_overridden(changes: Sequence[str], copy: Path, path: Path = PARAMS) -> Params:
    """Write the parameters of a file with changes into a copy of it; ParamsError for what is refused."""
    read_mapping(path)
    copy.write_bytes(path.read_bytes())
    _apply(changes, copy)
    try:
        return load_params(copy)
    except ParamsError as error:
        raise ParamsError(str(error).replace(str(copy), f"{path} with -S")) from error


def _apply(changes: Sequence[str], path: Path) -> None:
    """Write the changes into the file, by DVC's own functions."""
    from dvc.exceptions import InvalidArgumentError
    from dvc.utils.cli_parse import to_path_overrides
    from dvc.utils.hydra import apply_overrides, to_hydra_overrides
    from hydra.errors import HydraException

    by_file, given = to_path_overrides(changes), f"-S {' '.join(changes)}"
    for file in by_file:
        if Path(file) != Path(path.name):
            raise ParamsError(f"{given}: parameters are in {path.name} alone: leave {file}: out")
    overrides = [one for ones in by_file.values() for one in ones]
    try:
        if any(one.is_sweep_override() for one in to_hydra_overrides(overrides)):
            raise ParamsError(
                f"{given}: several values are several experiments, which DVC queues: give one of them; a "
                f"list is written key=[a,b]"
            )
        apply_overrides(path, overrides)
    except (InvalidArgumentError, HydraException) as error:
        cause = " ".join(str(error.__cause__ or error).partition("\nSee http")[0].split())
        raise ParamsError(f"{given}: {cause}") from error
