"""What an alignment notes on disk, and what tells one checkpoint from another."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sglang_hetero_spec import files
from sglang_hetero_spec.build.align.errors import AlignStopped

_EDGE_BYTES = 1 << 20


def write_json(path: Path, value: object) -> None:
    """Whole or not at all; AlignStopped if the disk refuses."""
    files.write_json(path, value, AlignStopped)


def fingerprint(name_or_path: str) -> str:
    """Hex SHA-256 that tells one checkpoint from another without reading all of it: config, sizes, edges of weights."""
    folder = Path(name_or_path)
    digest = hashlib.sha256()
    if not folder.is_dir():
        digest.update(name_or_path.encode())
        return digest.hexdigest()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".bin") or path.name in ("config.json", "tokenizer.json"):
            size = path.stat().st_size
            digest.update(f"{path.name} {size}\n".encode())
            with path.open("rb") as file:
                digest.update(file.read(_EDGE_BYTES))
                file.seek(max(0, size - _EDGE_BYTES))
                digest.update(file.read(_EDGE_BYTES))
    return digest.hexdigest()
