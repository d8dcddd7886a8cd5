"""N-gram drafters: greedy output is the target's own, and text that repeats itself is accepted in long runs."""

from __future__ import annotations

import random

import pytest

from tests.engine.cases import Case, cases_of
from tests.engine.compare import Comparison
from tests.engine.figures import accept_length, num_drafted
from tests.engine.fleet import Reference, ask
from tests.engine.pools import COPIES, FOREIGN
from tests.support.servers import Server


@pytest.mark.parametrize("drafter", COPIES)
def test_alone(hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str], drafter: str) -> None:
    """The second time the answers are known."""
    cases = cases_of(prompts[:24], [drafter])
    expected = reference.answers(cases)
    lengths = []
    for _ in range(2):
        answers = ask(hetero, cases)
        same_tokens.answers(cases, expected, answers)
        lengths.append(accept_length(answers))
    print(f"{drafter}: accept length {lengths[0]:.3f}, the second time {lengths[1]:.3f}")
    assert lengths[0] > 1.2 and lengths[1] > 2.5


def test_of_ids_at_random(hetero: Server, reference: Reference, same_tokens: Comparison) -> None:
    """Prompts without sense that repeat themselves or not, beside drafters with vocabularies of their own."""
    rng = random.Random(4)
    once = [[rng.randrange(10, 4000) for _ in range(30)] for _ in range(8)]
    cases = cases_of([*once, *(ids * 3 for ids in once), *([7] * n for n in (1, 2, 40))], (*COPIES, FOREIGN[0]))
    answers = ask(hetero, cases)
    same_tokens.answers(cases, reference.answers(cases), answers)
    assert num_drafted(answers) > 0


def test_a_conversation_with_the_prefix_cache(
    hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]
) -> None:
    text = prompts[0]
    for drafter in ("copies-tree", "chain-3", "copies-chain", "none", "copies-tree"):
        case = Case(text, drafter=drafter).with_params(max_new_tokens=24)
        (expected,), (answer,) = reference.answers([case]), ask(hetero, [case])
        same_tokens.answers([case], [expected], [answer])
        text += answer["text"] + "\n"


def test_no_more_is_counted_than_was_proposed(hetero: Server) -> None:
    """At first nothing is known: the root goes alone."""
    (answer,) = ask(hetero, [Case([11, 23, 31, 47, 59], drafter="copies-chain")])
    meta = answer["meta_info"]
    assert meta["spec_num_correct_drafts"] <= meta["spec_num_proposed_drafts"] < 5 * meta["spec_verify_ct"]
