"""SHA-256 of files, once per (path, size, mtime) in a process."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sglang_hetero_spec.pool.errors import PoolError

_CHUNK = 1 << 20
_cache: dict[tuple[str, int, int], str] = {}


def file_key(path: Path) -> tuple[str, int, int]:
    """What a cached result of this file hangs on."""
    stat = path.stat()
    return str(path), stat.st_size, stat.st_mtime_ns


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of the file's bytes."""
    key = file_key(path)
    if key not in _cache:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        _cache[key] = digest.hexdigest()
    return _cache[key]


def weights_sha256(folder: Path) -> str:
    """Hex SHA-256 of a checkpoint's weights, as a manifest gives it.

    One *.safetensors file: the hash of its bytes (what `sha256sum` prints). Several: the hash of the lines
    `<hash>  <name>\\n`, sorted by name (what `sha256sum *.safetensors | sha256sum` prints).
    """
    files = sorted(folder.glob("*.safetensors"), key=lambda file: file.name)
    if not files:
        raise PoolError(f"{folder} has no *.safetensors file; save the weights as safetensors.")
    if len(files) == 1:
        return file_sha256(files[0])
    lines = "".join(f"{file_sha256(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()
