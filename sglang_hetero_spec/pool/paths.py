"""Paths of a manifest: inside the pool, symbolic links included, unless a drafter is declared external."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from sglang_hetero_spec.pool.errors import PoolError, shown


def inside(root: Path, path: Path) -> bool:
    """Whether `path`, with every link followed, lies in `root`."""
    return path.resolve().is_relative_to(root.resolve())


def resolve(root: Path, value: str, where: str, external: bool = False) -> Path:
    """The absolute path that a manifest's `path` means.

    `where` is "<file>: `<field>`", for the error. Relative paths start at the pool, for external drafters too.
    """
    hint = "" if not where.endswith(".path`") or "drafters" not in where else ', or add `"external": true`'
    if not value or "\0" in value:
        raise PoolError(f"{where} is {shown(value)}; give a folder, relative to the pool.")
    if not external:
        if PurePosixPath(value).is_absolute() or os.path.isabs(value):
            raise PoolError(
                f"{where} is {shown(value)}, an absolute path; give one relative to the pool{hint}."
            )
        if not inside(root, root / value):
            raise PoolError(
                f"{where} is {shown(value)}, which leaves the pool; move the folder into the pool{hint}."
            )
    path = (root / value).resolve()
    if not path.is_dir():
        state = "is not a folder" if path.exists() else "does not exist"
        raise PoolError(
            f"{where} is {shown(value)}, but {path} {state}; correct the path, or put the folder there."
        )
    if path == root.resolve():
        raise PoolError(f"{where} is {shown(value)}, the pool itself; give a folder in the pool{hint}.")
    return path


def check_links(root: Path, folder: Path, where: str) -> None:
    """Refuse a link in `folder` whose target lies outside the pool."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            entry = Path(parent, name)
            if entry.is_symlink() and not inside(root, entry):
                raise PoolError(
                    f"{where} holds the link {entry.relative_to(folder)}, which leaves the pool; copy the file there."
                )
