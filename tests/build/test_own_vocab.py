"""A whole build in which the drafters that are made, and one that is given, have vocabularies of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sglang_hetero_spec.build.assemble import mode_of
from sglang_hetero_spec.build.profile.records import Settings
from sglang_hetero_spec.pool import load_pool, tokenizer_sha256
from tests.build.assign.profiles import record
from tests.build.regenerate.fakes import serving
from tests.build.whole import CONTEXT, SmallVocabulary, Whole, write_log, write_target
from tests.support.tiny_models import TinyShape, write_tiny_model

MODELS = Path(__file__).parents[1] / "models"


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Whole]:
    target = write_target(tmp_path / "target")
    with serving(SmallVocabulary(context=CONTEXT)) as server:
        yield Whole(target, write_log(tmp_path / "log.jsonl"), tmp_path / "pool", server.url)


def test_drafters_with_another_tokenizer_are_made_measured_and_served(whole: Whole, tmp_path: Path) -> None:
    given = tmp_path / "given"
    write_tiny_model(given, seed=4, shape=TinyShape(hidden=32, layers=1, max_len=CONTEXT))
    _swap_two_tokens(given / "tokenizer.json")
    whole.settings = {
        "tokenizer": str(MODELS / "bpe"), "align.loss": "ce", "align.vocab": "slem", "drafters": f"{{given: {given}}}",
    }  # fmt: skip
    ended = whole.run()
    assert ended.code == 0, ended.said
    records = [json.loads(line) for line in (whole.out / "profile.jsonl").read_text().splitlines()]
    modes: dict[str, set[str]] = {}
    for line in records:
        modes.setdefault(line["drafter"], set()).add(line["vocab"])
    aligned = {name: {"slem"} for name in ("general", "sum", "greet")}
    assert modes == {"none": {"shared"}, **aligned, "given": {"slem", "tli"}}
    pool = load_pool(whole.out, target=whole.target)
    assert {drafter.vocab for drafter in pool.drafters if drafter.kind != "none"} <= {"slem", "tli"}
    for drafter in pool.drafters:
        assert drafter.vocab in modes[drafter.name]
        if drafter.vocab == "slem":
            assert drafter.path is not None
            assert tokenizer_sha256(drafter.path) == tokenizer_sha256(MODELS / "bpe")
    assert whole.run().done_before  # nothing is made twice


def test_a_drafter_is_served_in_the_mode_that_its_shape_was_measured_in() -> None:
    """A chain that nobody measured is the beginning of one that was; a text is no beginning of a chain."""
    chain = record("d", "t", 4)
    text = replace(chain, vocab="slem", num_draft_tokens=9, correct_by_position=(0,) * 8)
    other = replace(record("e", "t", 4), vocab="slem")
    measured = [text, replace(chain, vocab="tli"), other]
    assert mode_of(measured, "d", Settings(4, 1, 9)) == "slem"
    assert mode_of(measured, "d", Settings(4, 1, 5)) == mode_of(measured, "d", Settings(2, 1, 3)) == "tli"
    assert mode_of(measured, "e", Settings(4, 1, 5)) == "slem"


def _swap_two_tokens(path: Path) -> None:
    made = json.loads(path.read_text())
    vocab = made["model"]["vocab"]
    *_, first, second = vocab
    vocab[first], vocab[second] = vocab[second], vocab[first]
    path.write_text(json.dumps(made))
