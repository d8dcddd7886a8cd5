"""Finds what could run code when loaded: pickles, by name and by their first bytes."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from sglang_hetero_spec.pool.errors import PoolError

PICKLE_SUFFIXES = (".pkl", ".pickle", ".bin", ".pt", ".pth", ".ckpt", ".joblib")
_PICKLE_PROTOCOLS = range(2, 6)


def refuse_pickles(folder: Path) -> None:
    """PoolError if a file anywhere in `folder` is a pickle or is named like one. Nothing is loaded."""
    for parent, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(parent, name)
            reason = _reason(path)
            if reason:
                raise PoolError(
                    f"{path} {reason}, and nothing in a pool may be a pickle; remove it (weights: *.safetensors only)."
                )


def _reason(path: Path) -> str | None:
    if path.suffix.lower() in PICKLE_SUFFIXES:
        return f"is named like a pickle ({path.suffix.lower()})"
    if not path.is_file():  # a pipe or a dead link: opening it could block
        return None
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise PoolError(f"{path} cannot be read ({error.strerror}); check its permissions.") from None
    if head[:4] == b"PK\x03\x04" and _zip_has_pickle(path):
        return "is an archive with a pickle in it"
    if len(head) > 1 and head[0] == 0x80 and head[1] in _PICKLE_PROTOCOLS and not _is_safetensors(path, head):
        return "starts like a pickle"
    return None


def _is_safetensors(path: Path, head: bytes) -> bool:
    """A header of 0x..0280 bytes makes a safetensors file start like a pickle of protocol 2."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8


def _zip_has_pickle(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.lower().endswith((".pkl", ".pickle")) for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False
