"""A pool.json written by hand, as a user would."""

from __future__ import annotations

import json
from pathlib import Path


def write_manifest(
    pool: Path, drafters: list[dict], *, fallback: str, tasks: list[dict] | None = None, **extra: object
) -> Path:
    """A pool.json written by hand, as a user would."""
    manifest = {
        "format": "sglang_hetero_spec.pool",
        "schema_version": 1,
        "drafters": drafters,
        "tasks": tasks or [],
        "fallback_drafter": fallback,
        **extra,
    }
    pool.mkdir(parents=True, exist_ok=True)
    (pool / "pool.json").write_text(json.dumps(manifest, indent=2))
    return pool
