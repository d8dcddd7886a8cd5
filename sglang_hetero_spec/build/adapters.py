"""Drafters that are adapters of one base: where the base lies, and what they cost together."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from sglang_hetero_spec.build.layout import GENERAL
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.pool import local_folder


def place_base(base: str | None, folder: Path) -> str:
    """A copy of the base in `folder`, whole or not at all; the same one if it is there already."""
    source = None if base is None else local_folder(base, None)
    if source is None:
        raise HeteroError(f"`base` is {base}, but `align.lora` needs a folder; download the model, and name that.")
    if not folder.is_dir():
        half = folder.with_name(f".{folder.name}.half")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(source, half, ignore=shutil.ignore_patterns(".*"))
        half.replace(folder)
    return str(folder)


def shared_base(
    memory: Mapping[str, int], limit: int | None, adapters: Collection[str], base: str = GENERAL
) -> tuple[dict[str, int], int | None]:
    """Bytes of each drafter and their limit, as `assign` adds them up: with adapters about, the base's are taken off
    the limit and cost nothing more; where the limit is below that, no adapter fits."""
    sizes = dict(memory)
    if limit is None or not adapters or base not in sizes:
        return sizes, limit
    if limit < sizes[base]:
        return {name: size + sizes[base] if name in adapters else size for name, size in sizes.items()}, limit
    return {**sizes, base: 0}, limit - sizes[base]
