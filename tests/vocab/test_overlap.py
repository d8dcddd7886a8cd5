"""What two vocabularies share, in figures: against counting by hand; and the mode that `auto` makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from sglang_hetero_spec.vocab.choose import choose
from sglang_hetero_spec.vocab.intersection import intersect
from sglang_hetero_spec.vocab.overlap import Overlap, describe
from sglang_hetero_spec.vocab.pairing import Pairing
from sglang_hetero_spec.vocab.token_weights import ANSWERS, TASKS, TokenWeights, pool_weights
from tests.vocab.sides import side_of, table_of

SOME = Overlap(num_shared=80, num_target=100, num_draft=160, relation="different", mass=0.9, mass_of="the answers")
NO_MASS = replace(SOME, mass=None, mass_of=None)


@cache
def pairing(target: str, draft: str) -> Pairing:
    return Pairing(side_of(target), side_of(draft), intersect(side_of(target), side_of(draft)))


def write_tasks(root: Path, *tasks: dict[str, object]) -> None:
    (root / TASKS).write_text(json.dumps(tasks))


def write_answers(root: Path, *rows: object) -> None:
    (root / ANSWERS).parent.mkdir(parents=True, exist_ok=True)
    (root / ANSWERS).write_text("".join(json.dumps({"id": "x", "output_ids": row}) + "\n" for row in rows))


@pytest.mark.parametrize(("target", "draft"), [("gpt2", "byt5"), ("llama2", "gpt2"), ("gpt2", "llama3")])
def test_figures_are_those_of_a_count_by_hand(target: str, draft: str) -> None:
    found = describe(pairing(target, draft), TokenWeights(np.arange(len(table_of(target)), dtype=float), "it"))
    theirs, ours = table_of(target), table_of(draft)
    texts = theirs.ids_by_bytes.keys() & ours.ids_by_bytes.keys()
    ends = 1  # both end a text with </s>
    specials = {theirs.names[i] for i in theirs.names if theirs.roles[i] == 6} & set(ours.names.values())
    assert found.num_shared == len(texts) + ends + len(specials)
    assert (found.num_target, found.num_draft) == (len(theirs), len(ours)), "these have no padding"
    assert found.target_percent == pytest.approx(100 * found.num_shared / len(theirs))
    assert found.draft_percent == pytest.approx(100 * found.num_shared / len(ours))
    shared = [i for i in range(len(theirs)) if pairing(target, draft).shared.shared_targets[i]]
    assert found.mass == pytest.approx(sum(shared) / sum(range(len(theirs)))) and found.mass_of == "it"


def test_the_line_for_the_log() -> None:
    assert SOME.line("x", "tli") == (
        "Drafter x, vocab tli: 80 tokens are shared, 80.0% of the target's vocabulary, 50.0% of the drafter's, 90.0% of"
        " the tokens in the answers."
    )
    assert NO_MASS.line("x", "slem").endswith("80.0% of the target's vocabulary, 50.0% of the drafter's.")


def test_a_warning_where_tli_shares_too_little() -> None:
    low = replace(SOME, mass=0.699)
    assert low.warning("x", "tli") == (
        "Drafter x can propose only 69.9% of the tokens in the answers with `tli`, too little to pay: use `slem`, which"
        " drafts with the whole vocabulary, or `auto`."
    )
    assert replace(SOME, mass=0.7, num_shared=1).warning("x", "tli") is None, "what the target writes counts"
    assert "69.0% of the target's vocabulary" in str(replace(NO_MASS, num_shared=69).warning("x", "tli"))
    assert low.warning("x", "slem") is None is low.warning("x", "slrs")


@pytest.mark.parametrize("mode", ["tli", "slem", "slrs"])
def test_a_warning_where_the_vocabulary_is_the_targets(mode: str) -> None:
    for relation in ("identical", "padded"):
        same = replace(SOME, relation=relation)
        assert same.warning("x", mode) == (
            f"Drafter x has the target's own vocabulary: `shared` drafts the same, for less than `{mode}`."
        )
    assert replace(SOME, relation="permuted").warning("x", mode) is None
    assert replace(SOME, relation="padded", num_draft=99).warning("x", mode) is None, "it could not be shared"
    real = describe(pairing("gpt2", "gpt2"))
    assert "`shared` drafts the same" in str(real.warning("x", mode)) and real.warning("x", "shared") is None


@pytest.mark.parametrize(("mass", "mode"), [(1.0, "tli"), (0.95, "tli"), (0.9499, "slem"), (0.0, "slem")])
def test_the_choice_of_auto(mass: float, mode: str) -> None:
    assert choose(replace(SOME, mass=mass)).mode == mode
    assert choose(replace(NO_MASS, num_shared=round(10_000 * mass), num_target=10_000)).mode == mode


def test_the_reason_names_the_figure() -> None:
    assert choose(SOME).reason == "it shares 90.0% of the tokens in the answers, less than the 95% that `tli` takes"
    assert choose(replace(NO_MASS, num_shared=99)).reason == "it shares 99.0% of the target's vocabulary, at least 95%"


def test_a_share_just_below_is_not_shown_as_enough() -> None:
    assert "94.9% of" in choose(replace(SOME, mass=0.9499)).reason


def test_a_pool_that_knows_nothing(tmp_path: Path) -> None:
    assert pool_weights(tmp_path, side_of("gpt2")) is None
    assert describe(pairing("gpt2", "byt5"), None).mass is None


def test_examples_are_weighted_by_the_size_of_their_task(tmp_path: Path) -> None:
    """A task of 9 prompts, however long its examples, has nine times the weight of one with 1."""
    side = side_of("gpt2")
    write_tasks(tmp_path, {"size": 9, "examples": ["!", "!" * 99]}, {"examples": ["?"]}, {"size": 5, "examples": []})
    found = pool_weights(tmp_path, side)
    assert found is not None and found.source == "the tasks' example prompts"
    mark = side.encode(b"?")
    assert len(mark) == 1 and found.counts[mark[0]] == pytest.approx(1) and found.counts.sum() == pytest.approx(10)


def test_answers_come_before_examples(tmp_path: Path) -> None:
    write_tasks(tmp_path, {"size": 9, "examples": ["!"]})
    write_answers(tmp_path, [5, 6, 6], [], [2])
    found = pool_weights(tmp_path, side_of("gpt2"))
    assert found is not None and found.source == "the target's answers"
    assert {i: int(found.counts[i]) for i in np.flatnonzero(found.counts)} == {2: 1, 5: 1, 6: 2}


@pytest.mark.parametrize("row", [[10**6], [-1], ["a"], "abc", None, [[1], [2]], [1.5e300], [10**30]])
def test_answers_that_are_not_this_targets_are_left_out(tmp_path: Path, row: object) -> None:
    write_answers(tmp_path, [5, 6], row)
    assert pool_weights(tmp_path, side_of("gpt2")) is None


TASK_FILES = [
    "", "{", "3", "{}", "[3]", '[{"examples": 3}]', '[{"examples": ["a"], "size": "x"}]', '[{"size": 3}]', "[" * 10**5,
    '[{"examples": ["a"], "size": 1e999}]', '[{"examples": ["\\ud800"]}]', '[{"examples": ["a"], "size": NaN}]',
]  # fmt: skip


@pytest.mark.parametrize("text", TASK_FILES)
def test_a_tasks_file_that_cannot_be_read_counts_as_absent(tmp_path: Path, text: str) -> None:
    (tmp_path / TASKS).write_text(text)
    assert pool_weights(tmp_path, side_of("gpt2")) is None


def test_a_large_file_takes_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies beyond is not even read: it need not be right."""
    monkeypatch.setattr("sglang_hetero_spec.vocab.token_weights._MAX_BYTES", 80)
    write_answers(tmp_path, [5], [6], *([["wrong"]] * 5))
    found = pool_weights(tmp_path, side_of("gpt2"))
    assert found is not None and found.counts.sum() == 2
