"""Greedy output is the target's own where drafters have another vocabulary, also on text made to hurt."""

from __future__ import annotations

import random

import pytest

from tests.engine.cases import Case, cases_of
from tests.engine.compare import Comparison
from tests.engine.figures import accept_length, num_drafted, served_by
from tests.engine.fleet import Reference, ask
from tests.engine.pools import EVERYONE, FOREIGN, SLRS, Models
from tests.support.servers import Server
from tests.vocab.texts import HARD

NUM_TOKENS = 64


@pytest.mark.parametrize("drafter", FOREIGN)
def test_alone(hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str], drafter: str) -> None:
    cases = cases_of(prompts[:16], [drafter], max_new_tokens=NUM_TOKENS)
    answers = ask(hetero, cases)
    same_tokens.answers(cases, reference.answers(cases), answers)
    print(f"{drafter}: accept length {accept_length(answers):.3f}")
    assert accept_length(answers) > 1.05


def test_string_level_rejection_alone(
    hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]
) -> None:
    cases = cases_of(prompts[:3], [SLRS], max_new_tokens=12)
    answers = ask(hetero, cases)
    same_tokens.answers(cases, reference.answers(cases), answers)
    assert accept_length(answers) > 1.05


def test_among_shared_ones(hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]) -> None:
    """All in one batch, trees among them."""
    cases = cases_of(prompts[:39], (*FOREIGN, *EVERYONE), max_new_tokens=NUM_TOKENS)
    cases += cases_of(prompts[:2], [SLRS], max_new_tokens=8)
    answers = ask(hetero, cases)
    same_tokens.answers(cases, reference.answers(cases), answers)
    for drafter in (*FOREIGN, SLRS):
        assert num_drafted(served_by(drafter, cases, answers)) > 0, drafter


def test_no_more_is_counted_than_was_proposed(hetero: Server, prompts: list[str]) -> None:
    """SLEM's trees hold as many drafts as the text had tokens."""
    (answer,) = ask(hetero, cases_of(prompts[:1], ["slem-bytes"], max_new_tokens=NUM_TOKENS))
    meta = answer["meta_info"]
    assert meta["spec_num_correct_drafts"] <= meta["spec_num_proposed_drafts"] < 5 * meta["spec_verify_ct"]


def hard_prompts(rng: random.Random) -> list[str]:
    mixed = ["".join(rng.choices(HARD, k=12)) for _ in range(10)]
    return [*mixed, " " * 10_000, "A" * 700, "\t" * 60, "\r\n" * 40, "e\u0301" * 50, "\ud55c\uad6d\uc5b4 " * 20]


def hard_ids(rng: random.Random, vocab_size: int) -> list[list[int]]:
    """Any ids: bytes that are no UTF-8, characters cut in two, specials, words in pieces."""
    return [[rng.randrange(vocab_size) for _ in range(40)] for _ in range(8)]


def test_text_made_to_hurt(hetero: Server, reference: Reference, same_tokens: Comparison, models: Models) -> None:
    rng = random.Random(4)
    prompts = hard_prompts(rng) + hard_ids(rng, 4096)
    cases = cases_of(prompts, FOREIGN, max_new_tokens=40)
    cases += cases_of(prompts, FOREIGN[3:] + FOREIGN[:3], max_new_tokens=40)
    cases += [Case(case.prompt, case.params, drafter=SLRS).with_params(max_new_tokens=5) for case in cases[8:10]]
    same_tokens.answers(cases, reference.answers(cases), ask(hetero, cases))


def test_conversation_with_drafters_in_turn(
    hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]
) -> None:
    """The prefix cache holds what another drafter served; nobody's sequence is mixed up with that."""
    text = prompts[0]
    for drafter in ("tli-bpe", "chain-3", "slem-sentencepiece", "tli-bpe", "slem-bytes"):
        case = Case(text, drafter=drafter).with_params(max_new_tokens=24)
        (expected,), (answer,) = reference.answers([case]), ask(hetero, [case])
        same_tokens.answers([case], [expected], [answer])
        text += answer["text"] + "\n"
