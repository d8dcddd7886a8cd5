"""`write_pool_manifest`: pool.json, written last, checked first, and in one step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sglang_hetero_spec.files import write_whole
from sglang_hetero_spec.pool import paths
from sglang_hetero_spec.pool.digest import weights_sha256
from sglang_hetero_spec.pool.errors import PoolError
from sglang_hetero_spec.pool.load import check_pool
from sglang_hetero_spec.pool.model import Pool
from sglang_hetero_spec.pool.parse import parse_manifest
from sglang_hetero_spec.pool.schema import FORMAT, MANIFEST_NAME, SCHEMA_VERSION
from sglang_hetero_spec.pool.vocabulary import has_tokenizer, tokenizer_sha256


def write_pool_manifest(
    path: str | Path,
    *,
    drafters: Sequence[Mapping[str, Any]],
    fallback_drafter: str,
    tasks: Sequence[Mapping[str, Any]] = (),
    router: Mapping[str, Any] | None = None,
    target: str | Path | None = None,
    target_name: str | None = None,
    merged_draft_tokens: int | None = None,
    hashes: bool = True,
) -> Pool:
    """Write pool.json into the folder `path`, where drafters and router already are, and return the pool.

    `drafters`, `tasks` and `router` are as in the manifest. `target` is the target's folder: tokenizers are
    compared with it, and its hash is recorded; `target_name` is what the manifest calls it (default: the
    folder's name). `hashes` adds the SHA-256 of weights and tokenizers that the caller did not give. A pool
    that `load_pool` would refuse is refused and nothing is written; the file appears whole or not at all.
    PoolError for both, and for a disk that refuses.
    """
    root = paths.pool_root(path, MANIFEST_NAME)
    manifest: dict[str, Any] = {"format": FORMAT, "schema_version": SCHEMA_VERSION}
    manifest["target"] = _target(target, target_name, hashes)
    manifest["drafters"] = [
        _with_hashes(root, drafter, index) if hashes else dict(drafter) for index, drafter in enumerate(drafters)
    ]
    manifest["tasks"] = [dict(task) for task in tasks]
    manifest["fallback_drafter"] = fallback_drafter
    if merged_draft_tokens is not None:
        manifest["merged_draft_tokens"] = merged_draft_tokens
    if router is not None:
        manifest["router"] = dict(router)
    text = json.dumps(manifest, indent=2, ensure_ascii=True) + "\n"
    where = root / MANIFEST_NAME
    pool = check_pool(root, parse_manifest(text, where), target)
    write_whole(where, [text.encode("ascii")], PoolError)
    return pool


def _target(target: str | Path | None, name: str | None, hashes: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    if name is not None or target is not None:
        found["name_or_path"] = name if name is not None else Path(str(target)).name
    if hashes and target is not None and has_tokenizer(Path(target)):
        found["tokenizer_sha256"] = tokenizer_sha256(Path(target))
    return found


def _with_hashes(root: Path, drafter: Mapping[str, Any], index: int) -> dict[str, Any]:
    entry = dict(drafter)
    if not isinstance(entry.get("path"), str):
        return entry
    field = f"{root / MANIFEST_NAME}: `drafters[{index}].path`"
    folder = paths.resolve(root, entry["path"], field, entry.get("external") is True)
    entry.setdefault("weights_sha256", weights_sha256(folder))
    if has_tokenizer(folder):
        entry.setdefault("tokenizer_sha256", tokenizer_sha256(folder))
    return entry
