"""The entry of an n-gram drafter, and its corpus: what is wrong is one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from fake_pool import FakePool
from safetensors.numpy import save_file

from sglang_hetero_spec.ngram.files import write_corpus
from sglang_hetero_spec.pool import PoolError, load_pool
from sglang_hetero_spec.pool.entries.ngram import CORPUS_NAME, DEFAULT_CAPACITY

ENTRY = {"name": "copies", "kind": "ngram", "num_steps": 4, "topk": 2, "num_draft_tokens": 8}


@pytest.fixture
def corpus(pool: FakePool) -> Path:
    """The pool has one more drafter, with this corpus."""
    folder = pool.root / "drafters" / "copies"
    folder.mkdir()
    write_corpus(folder, [[1, 2, 3], [4, 5]])
    pool.manifest["drafters"].append({**ENTRY, "path": "drafters/copies"})
    pool.write()
    return folder / CORPUS_NAME


def test_without_files(pool: FakePool) -> None:
    pool.manifest["drafters"].append(dict(ENTRY))
    pool.write()
    drafter = load_pool(pool.root, target=pool.target).drafter("copies")
    assert (drafter.path, drafter.capacity, drafter.vocab) == (None, DEFAULT_CAPACITY, "shared")
    assert (drafter.num_steps, drafter.topk, drafter.num_draft_tokens) == (4, 2, 8)


def test_with_a_corpus(pool: FakePool, corpus: Path) -> None:
    assert load_pool(pool.root, target=pool.target).drafter("copies").path == corpus.parent.resolve()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"capacity": 1023}, r"`drafters\[3\]\.capacity` is 1023; give a whole number of tokens from 1,024 to 67,10"),
        ({"capacity": 1 << 27}, r"`drafters\[3\]\.capacity` is 134217728; give a whole number"),
        ({"external": True}, r"`drafters\[3\]\.external` is true, but there is no `path`"),
        ({"weights_sha256": "0" * 64}, r"weights_sha256` is .*, but there is no `path`"),
        ({"base": "code"}, r"`drafters\[3\]\.base` is \"code\", but kind `ngram` has no such key"),
        ({"path": "drafters/code"}, r"which has no corpus\.safetensors; make it again with `hetero-spec"),
        ({"path": "drafters/nowhere"}, r"does not exist"),
        ({"num_steps": None}, r"`drafters\[3\]\.num_steps` is missing"),
    ],
)  # fmt: skip
def test_an_entry_that_cannot_be(pool: FakePool, change: dict, says: str) -> None:
    entry = {key: value for key, value in {**ENTRY, **change}.items() if value is not None}
    pool.manifest["drafters"].append(entry)
    pool.write()
    assert re.search(says, pool.refusal(target=pool.target))


def test_no_corpus_but_something_else(pool: FakePool, corpus: Path) -> None:
    for rubbish in (b"", b"just text, " * 9, bytes(range(256)) * 40, corpus.read_bytes()[:-1]):
        corpus.write_bytes(rubbish)
        assert "is no corpus but something else, or a part of one; make it again" in pool.refusal(target=pool.target)


TOKENS, STARTS = np.zeros(4, np.int32), np.zeros(1, np.int64)
NOT_STARTS = "`starts` are not the ascending beginnings of its texts"


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"tokens": TOKENS[:0], "starts": STARTS[:0]}, "is an empty corpus; make it again"),
        ({"tokens": TOKENS}, "`starts` is missing, not a list of I64 numbers"),
        ({"tokens": np.zeros(4, np.float32), "starts": STARTS}, r"`tokens` is F32 of shape \[4\], not a list"),
        ({"tokens": TOKENS.reshape(2, 2), "starts": STARTS}, r"`tokens` is I32 of shape \[2, 2\], not a list"),
        ({"tokens": TOKENS, "starts": np.array([0, 4])}, NOT_STARTS),
        ({"tokens": TOKENS, "starts": np.array([1])}, NOT_STARTS),
        ({"tokens": TOKENS, "starts": np.array([0, 2, 2])}, NOT_STARTS),
        ({"tokens": TOKENS + 21, "starts": STARTS}, "holds the token id 21, and the target has 21"),
        ({"tokens": TOKENS - 2, "starts": STARTS}, "holds the token id -2, and the target has 21"),
        ({"tokens": np.zeros(5000, np.int32), "starts": STARTS}, "has 5,000 tokens in 1 texts, more than .* 2,048"),
    ],
)
def test_a_corpus_that_cannot_be(pool: FakePool, corpus: Path, tensors: dict, says: str) -> None:
    pool.manifest["drafters"][-1]["capacity"] = 2048
    pool.write()
    save_file(tensors, corpus)
    assert re.search(says, pool.refusal(target=pool.target))


def test_a_hash_that_differs(pool: FakePool, corpus: Path) -> None:
    pool.manifest["drafters"][-1]["weights_sha256"] = "0" * 64
    pool.write()
    with pytest.raises(PoolError, match="weights_sha256"):
        load_pool(pool.root, target=pool.target)
