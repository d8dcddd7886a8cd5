"""pool.json is written whole, last, and only for a pool that would be served."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest
from fake_pool import FakePool, write_tokenizer

from sglang_hetero_spec.pool import (
    PoolError,
    load_pool,
    tokenizer_sha256,
    weights_sha256,
    write_pool_manifest,
)


def parts(pool: FakePool) -> dict[str, Any]:
    keys = ("drafters", "tasks", "fallback_drafter", "router")
    return {key: pool.manifest[key] for key in keys}


def test_what_is_written_is_what_is_loaded(pool: FakePool) -> None:
    pool.manifest_path.unlink()
    written = write_pool_manifest(pool.root, target=pool.target, target_name="org/tiny", **parts(pool))
    assert load_pool(pool.root, target=pool.target) == written
    manifest = json.loads(pool.manifest_path.read_text())
    assert manifest["target"] == {
        "name_or_path": "org/tiny",
        "tokenizer_sha256": tokenizer_sha256(pool.target),
    }
    assert manifest["drafters"][0]["weights_sha256"] == weights_sha256(pool.code)
    assert manifest["drafters"][1]["tokenizer_sha256"] == tokenizer_sha256(pool.general)
    assert manifest["drafters"][2] == {"name": "off", "kind": "none"}
    assert "weights_sha256" not in pool.drafters[0], "the caller's own objects stay as they are"
    assert [path.name for path in pool.root.glob(".*")] == []


def test_without_hashes(pool: FakePool) -> None:
    write_pool_manifest(pool.root, hashes=False, **parts(pool))
    assert "sha256" not in pool.manifest_path.read_text()


def test_a_bad_pool_is_not_written(pool: FakePool) -> None:
    before = pool.manifest_path.read_bytes()
    write_tokenizer(pool.code, [f"x{index}" for index in range(20)])
    with pytest.raises(PoolError, match="20 of 21 token ids"):
        write_pool_manifest(pool.root, target=pool.target, **parts(pool))
    assert pool.manifest_path.read_bytes() == before


def test_a_bad_argument_is_refused_as_in_a_file(pool: FakePool) -> None:
    arguments = parts(pool)
    arguments["drafters"] = [{**pool.drafters[0], "topk": 0}, *pool.drafters[1:]]
    with pytest.raises(PoolError, match=r"`drafters\[0\].topk` is 0"):
        write_pool_manifest(pool.root, **arguments)
    arguments["drafters"] = [{**pool.drafters[0], "path": "nowhere"}]
    with pytest.raises(PoolError, match=r"nowhere does not exist"):
        write_pool_manifest(pool.root, **arguments)


def test_a_failure_while_writing_leaves_the_old_file(pool: FakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pool.manifest_path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(PoolError, match=r"pool.json cannot be written \(No space left on device\); free some space"):
        write_pool_manifest(pool.root, **parts(pool))
    assert pool.manifest_path.read_bytes() == before
    assert [path.name for path in pool.root.iterdir() if path.suffix == ".part"] == []
