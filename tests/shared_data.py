"""Where the real data of the tests lies: beside the checkout, never part of the project."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("MINDGAP_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def shared(name: str) -> Path:
    """A file or folder of real data; where it is absent the test is skipped, but in CI it fails."""
    path = SHARED / name
    if not path.exists():
        reason = f"{path} is absent: real data for tests; MINDGAP_TEST_DATA names another place"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path
