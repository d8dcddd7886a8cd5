"""Checkpoints that a kill leaves either whole or unmarked: a marker is written last, unmarked ones are removed."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

_MARK = "complete"
_PREFIX = "checkpoint-"


def path_of(folder: Path, step: int) -> Path:
    """Where Trainer puts the checkpoint of a step."""
    return folder / f"{_PREFIX}{step}"


def mark_complete(checkpoint: Path) -> None:
    (checkpoint / _MARK).touch()


def complete_steps(folder: Path) -> list[int]:
    """Steps with a whole checkpoint, lowest first."""
    found = []
    for path in folder.glob(f"{_PREFIX}*"):
        number = path.name.removeprefix(_PREFIX)
        if number.isdigit() and (path / _MARK).is_file():
            found.append(int(number))
    return sorted(found)


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint."""
    steps = complete_steps(folder)
    return path_of(folder, steps[-1]) if steps else None


def remove_torn(folder: Path) -> None:
    """Checkpoints that a kill left unmarked."""
    for path in folder.glob(f"{_PREFIX}*"):
        if not (path / _MARK).is_file():
            shutil.rmtree(path, ignore_errors=True)


def keep_only(folder: Path, newest: int, also: Collection[int]) -> None:
    """Remove all but the `newest` last ones and the steps in `also`."""
    steps = complete_steps(folder)
    for step in set(steps[:-newest]) - set(also):
        path = path_of(folder, step)
        # The mark goes first: half a checkpoint must not look whole.
        (path / _MARK).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
