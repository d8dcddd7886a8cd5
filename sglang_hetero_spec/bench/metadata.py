"""metadata.json: what a run was, on what, and whether it is complete."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import sglang_hetero_spec
from sglang_hetero_spec.bench.errors import BenchError
from sglang_hetero_spec.bench.records import FORMAT, METADATA_NAME, SCHEMA_VERSION
from sglang_hetero_spec.files import write_json
from sglang_hetero_spec.pool.errors import PoolError, shown
from sglang_hetero_spec.pool.strict_json import read_object

PACKAGES = ("sglang-hetero-spec", "sglang", "torch", "transformers", "numpy", "scikit-learn", "safetensors")
# What must be the same for blocks of two sessions to be of one run, and what the user calls it.
_SAME = {
    "target": "another --target",
    "pool": "another --pool",
    "workload": "other prompts, --num-prompts, --max-new-tokens, --prompt-tokens or --temperature",
    "arms": "other --arms",
    "settings": "other --concurrency or --rate",
    "repetitions": "other --repetitions",
    "seed": "another --seed",
    "order": "another --order",
    "machine": "another machine, --device, --dtype or --threads",
    "servers": "other servers or their options",
    "versions": "other versions of the packages",
    "commit": "another commit of this package",
}


def write_metadata(folder: Path, metadata: Mapping[str, Any]) -> None:
    write_json(folder / METADATA_NAME, metadata, BenchError)


def read_metadata(folder: Path) -> dict[str, Any]:
    """BenchError, in one sentence, where there is none, or it is not ours."""
    path = folder / METADATA_NAME
    if not path.is_file():
        raise BenchError(f"{folder} has no {METADATA_NAME}; give the folder of a run of `hetero-spec bench`.")
    try:
        found = read_object(path)
    except PoolError as error:
        raise BenchError(str(error)) from None
    if found.get("format") != FORMAT or found.get("schema_version") != SCHEMA_VERSION:
        kind = shown([found.get("format"), found.get("schema_version")])
        raise BenchError(f"{path} is of format {kind}, not {FORMAT}, {SCHEMA_VERSION}; name another folder.")
    return found


def refuse_other(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """BenchError if the run in `folder` was begun with other settings; a complete one may be of another version."""
    for key, words in _SAME.items():
        if before.get("complete") is True and key in ("versions", "commit"):
            continue
        if _comparable(before, key) != _comparable(now, key):
            raise BenchError(
                f"{folder} has a run that was begun with {words}; give the same, name another --out, or remove it."
            )


def _comparable(metadata: Mapping[str, Any], key: str) -> object:
    if key == "servers":
        found = (metadata.get("engine") or {}).get("servers") or {}
        return {name: [one.get("options"), one.get("started_by_us")] for name, one in found.items()}
    if key == "machine":  # how much memory is free changes
        return {name: value for name, value in (metadata.get("machine") or {}).items() if name != "memory_gb"}
    return metadata.get(key)


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def source_state() -> tuple[str | None, bool | None]:
    """The commit of this package's sources, and whether they are as committed; None, None outside of a repository."""
    package = Path(sglang_hetero_spec.__file__).parent
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    changed = _git(package, "status", "--porcelain")
    commit = _git(package, "rev-parse", "HEAD")
    return commit, None if changed is None else not changed


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
