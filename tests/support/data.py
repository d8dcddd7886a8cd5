"""Where public data lies: `HETERO_SPEC_DATA`, else `shared/data` beside the checkout. Absent is a reason to skip."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"


def data_file(name: str) -> Path:
    """The file, or the test is skipped with a reason that says how to have it."""
    folder = Path(os.environ.get("HETERO_SPEC_DATA") or _BESIDE)
    if not (folder / name).is_file():
        pytest.skip(f"{name} is not in {folder}: set HETERO_SPEC_DATA to the folder that has it")
    return folder / name
