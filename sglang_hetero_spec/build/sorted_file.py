"""sorted.json beside a checkpoint: the depths at which it was trained to be left (`align`, setting `exits`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.files import write_json

SORTED = "sorted.json"
FORMAT, SCHEMA_VERSION = "sglang_hetero_spec.sorted", 1


class SortedFileError(HeteroError):
    """A sorted.json that says nothing."""


def write_exits(folder: Path, exits: Sequence[int]) -> None:
    """exits: layers of each sub-model, ascending."""
    content = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "exits": list(exits)}
    write_json(folder / SORTED, content, SortedFileError)


def read_exits(folder: Path) -> tuple[int, ...] | None:
    """None for a checkpoint that is no sorted drafter; SortedFileError for a damaged file."""
    path = folder / SORTED
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    exits = found.get("exits") if isinstance(found, dict) and found.get("format") == FORMAT else None
    if not _are_exits(exits):
        raise SortedFileError(f"{path} is damaged; align the drafter again, or delete the file.")
    return tuple(exits)


def _are_exits(exits: object) -> bool:
    if not isinstance(exits, list) or not exits or not all(type(layers) is int and layers >= 1 for layers in exits):
        return False
    return all(before < after for before, after in pairwise(exits))
