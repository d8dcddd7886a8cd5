"""Paths of a manifest: inside the pool, symbolic links included, unless a drafter is declared external."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from sglang_hetero_spec.pool.errors import PoolError, shown


def pool_root(path: str | Path, manifest_name: str) -> Path:
    """The absolute path of a pool's folder; PoolError if there is no such folder."""
    remedy = f"give the folder that holds {manifest_name}"
    try:
        root = Path(path).resolve()
        if root.is_dir():
            return root
        state = "is not a folder" if root.exists() else "does not exist"
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name too long, a zero byte
        raise PoolError(f"{path} cannot be a pool ({error}); {remedy}.") from None
    raise PoolError(f"{root} {state}; {remedy}.")


def inside(root: Path, path: Path) -> bool:
    """Whether `path`, with every link followed, lies in `root`; a link to itself lies nowhere."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        return False


def resolve(root: Path, value: str, field: str, external: bool | None = None) -> Path:
    """The absolute folder that a manifest's `path` means, external or not relative to the pool.

    `field` is "<file>: `<dotted field>`", for the error. `external` None: it may not be declared here.
    """
    start = f"{field} is {shown(value)}"
    hint = "" if external is None else ', or add `"external": true`'
    if not value or "\0" in value:
        raise PoolError(f"{start}; give a folder, relative to the pool.")
    if not external:
        if PurePosixPath(value).is_absolute():
            raise PoolError(f"{start}, an absolute path; give one relative to the pool{hint}.")
        if not inside(root, root / value):
            raise PoolError(f"{start}, which leaves the pool; move the folder into the pool{hint}.")
    try:
        path = (root / value).resolve()
        state = None if path.is_dir() else "is not a folder" if path.exists() else "does not exist"
    except (OSError, RuntimeError) as error:
        raise PoolError(f"{start}, which cannot be a folder ({error}); correct the path.") from None
    if state:
        raise PoolError(f"{start}, but {path} {state}; correct the path, or put the folder there.")
    if path == root.resolve():
        raise PoolError(f"{start}, the pool itself; give a folder in the pool.")
    return path


def check_links(root: Path, folder: Path, field: str) -> None:
    """Refuse a link in `folder` whose target lies outside the pool."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            entry = Path(parent, name)
            if entry.is_symlink() and not inside(root, entry):
                link = entry.relative_to(folder)
                raise PoolError(f"{field} holds the link {link}, which leaves the pool; copy the file there.")
