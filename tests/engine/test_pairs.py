"""Requests that two drafters serve: their trees in one, the output the target's, more tokens a step than either's."""

from __future__ import annotations

import pytest

from tests.engine.cases import cases_of
from tests.engine.compare import Comparison
from tests.engine.figures import accept_length, num_drafted, served_by
from tests.engine.fleet import Reference, ask
from tests.engine.pools import EVERYONE, FOREIGN
from tests.support.servers import Server

PAIRS = (
    *("chain-1+chain-6", "chain-3+tree-2", "tree-3+chain-1", "tli-bpe+chain-3", "chain-3+slem-bytes"),
    *("chain-3+copies-tree", "copies-chain+tree-2", "sorted-some+tree-2", "chain-1+sorted-first"),
)
NUM_TOKENS = 64


def test_among_others(hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]) -> None:
    """All in one batch; some requests share a drafter with a pair."""
    cases = cases_of(prompts[:48], (*PAIRS, *EVERYONE, *FOREIGN[:2]), max_new_tokens=NUM_TOKENS)
    answers = ask(hetero, cases)
    same_tokens.answers(cases, reference.answers(cases), answers)
    for pair in PAIRS:
        assert num_drafted(served_by(pair, cases, answers)) > 0, pair


@pytest.mark.parametrize("pair", ["chain-3+tree-2", "chain-1+chain-6"])
def test_more_is_accepted_than_of_either(
    hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str], pair: str
) -> None:
    """Their trees fit into the verified width whole, so every path that one of them has is there."""
    lengths = {}
    for drafter in (pair, *pair.split("+")):
        cases = cases_of(prompts[:24], [drafter], max_new_tokens=NUM_TOKENS)
        answers = ask(hetero, cases)
        same_tokens.answers(cases, reference.answers(cases), answers)
        lengths[drafter] = accept_length(answers)
    print(lengths)
    assert lengths[pair] > max(lengths[drafter] for drafter in pair.split("+"))


def test_the_answer_says_who_drafted(hetero: Server, prompts: list[str]) -> None:
    (answer,) = ask(hetero, cases_of(prompts[:1], ["chain-3+tree-2"], max_new_tokens=8))
    assert answer["meta_info"]["hetero"] == {
        "task": None,
        "drafter": "chain-3",
        "drafters": ["chain-3", "tree-2"],
        "confidence": None,
        "source": "request",
    }


def test_the_second_one_may_have_a_shorter_context(
    hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]
) -> None:
    """`brief` leaves a pair when the text has become too long for it; the other one goes on."""
    cases = cases_of(prompts[:6], ["chain-3+brief", "brief+tree-2"], max_new_tokens=128)
    same_tokens.answers(cases, reference.answers(cases), ask(hetero, cases))
