"""Entries of kind `sorted`: what is refused before anything is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sglang_hetero_spec.pool import load_pool
from tests.pool.fake_pool import FakePool, write_json


@pytest.fixture
def pool(tmp_path: Path) -> FakePool:
    pool = FakePool(tmp_path)
    write_json(
        pool.general / "config.json",
        {"architectures": ["LlamaForCausalLM"], "vocab_size": 21, "num_hidden_layers": 4},
    )
    pool.drafters[1] |= {"kind": "sorted", "exits": [1, 2, 4], "thresholds": [0.5, 1]}
    pool.write()
    return pool


def test_a_good_one(pool: FakePool) -> None:
    spec = load_pool(pool.root).drafter("general")
    assert (spec.kind, spec.exits, spec.thresholds, spec.topk) == ("sorted", (1, 2, 4), (0.5, 1.0), 1)


def test_a_fixed_exit_needs_no_thresholds(pool: FakePool) -> None:
    pool.drafters[1]["exits"] = [2]
    del pool.drafters[1]["thresholds"]
    pool.write()
    assert load_pool(pool.root).drafter("general").thresholds == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"exits": None}, "exits` is missing; give the layers behind which it may leave, ascending from 1"),
        ({"exits": []}, "exits` is empty"),
        ({"exits": [2, 1, 4]}, "exits` is [2, 1, 4]; give the layers"),
        ({"exits": [1, 1, 4]}, "exits` is [1, 1, 4]; give the layers"),
        ({"exits": [0, 2, 4]}, "exits` is [0, 2, 4]; give the layers"),
        ({"exits": [1, 2, 5]}, "but the model in"),
        ({"exits": [1, 2.5, 4]}, "exits[1]` is 2.5; give a whole number"),
        ({"exits": 4}, "exits` is 4; give a list"),
        ({"thresholds": None}, "thresholds` is missing; 3 exits need 2 of them"),
        ({"thresholds": [0.5]}, "thresholds` is [0.5]; 3 exits need 2 of them"),
        ({"thresholds": [0.5, 0.5, 0.5]}, "3 exits need 2 of them"),
        ({"thresholds": [0.5, 1.5]}, "thresholds` is [0.5, 1.5]; give numbers from 0 to 1"),
        ({"thresholds": [-0.1, 0.5]}, "thresholds` is [-0.1, 0.5]; give numbers from 0 to 1"),
        ({"thresholds": ["high", 0.5]}, 'thresholds[0]` is "high"; give a number'),
        ({"topk": 2, "num_draft_tokens": 6}, "topk` is 2, but a sorted drafter drafts a chain"),
        ({"num_draft_tokens": 9}, "num_draft_tokens` is 9, but a chain"),
        ({"vocab": "tli"}, 'vocab` is "tli", but kind `sorted` has no such key'),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(pool: FakePool, change: dict[str, Any], says: str) -> None:
    pool.drafters[1] |= change
    message = pool.refusal()
    assert says in message and "drafters[1]" in message


def test_exits_belong_to_sorted_drafters(pool: FakePool) -> None:
    pool.drafters[0] |= {"exits": [1], "thresholds": []}
    assert "exits` is [1], but kind `standalone` has no such key" in pool.refusal()
