"""`hetero-spec inspect` of n-gram drafters."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fake_pool import FakePool

from sglang_hetero_spec.ngram.files import write_corpus

Run = Callable[..., Any]


def test_capacity_and_corpus_are_shown(hetero_spec: Run, pool: FakePool) -> None:
    (folder := pool.root / "drafters" / "filled").mkdir()
    write_corpus(folder, [[1, 2, 3], [4]])
    shape = {"kind": "ngram", "num_steps": 4, "topk": 2, "num_draft_tokens": 8}
    pool.drafters.append({"name": "plain", **shape, "capacity": 5000})
    pool.drafters.append({"name": "filled", **shape, "path": "drafters/filled"})
    pool.write()
    ran = hetero_spec("inspect", pool.root, "--target", pool.target)
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "Every check passed."), ran
    assert "Drafter plain remembers 5,000 tokens, the oldest out first; it begins with nothing." in ran.out
    assert "Drafter filled remembers 1,048,576 tokens, the oldest out first; it begins with 4." in ran.out
    ran = hetero_spec("inspect", pool.root, "--target", pool.target, "--json")
    plain, filled = json.loads(ran.out)["drafters"][-2:]
    assert (plain["kind"], plain["capacity"], plain["corpus_tokens"], plain["path"]) == ("ngram", 5000, 0, None)
    assert (filled["capacity"], filled["corpus_tokens"]) == (1 << 20, 4) and "num_params" not in filled
    assert len(filled["weights_sha256"]) == 64
