"""How much is accepted: everything from a drafter that is the target, and the same whoever warmed the cache."""

from __future__ import annotations

import pytest

from tests.engine.cases import Case, cases_of
from tests.engine.compare import Comparison
from tests.engine.figures import accept_length, assert_accepts_everything, num_drafted, served_by
from tests.engine.fleet import Reference, ask
from tests.engine.pools import BRIEF, BRIEF_CONTEXT, CHAINS, SELF, SELF_STEPS, TREES
from tests.support.servers import Server


@pytest.mark.parametrize("drafter", SELF)
def test_the_target_as_its_own_drafter(
    hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str], drafter: str
) -> None:
    cases = cases_of(prompts[:32], [drafter])
    answers = ask(hetero, cases)
    same_tokens.answers(cases, reference.answers(cases), answers)
    print(f"{drafter}: accept length {accept_length(answers):.3f} with {SELF_STEPS[drafter]} steps")
    assert_accepts_everything(answers, SELF_STEPS[drafter])


def test_the_target_drafts_among_others(
    hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]
) -> None:
    """The width of a step is that of the widest tree; it may not cost the others anything."""
    cases = cases_of(prompts[:32], (*SELF, "tree-4", "chain-6"))
    answers = ask(hetero, cases)
    same_tokens.answers(cases, reference.answers(cases), answers)
    for drafter in SELF:
        assert_accepts_everything(served_by(drafter, cases, answers), SELF_STEPS[drafter])


WARMERS = {"self-chain": "none", "self-tree": "chain-3", "chain-6": "tree-4", "tree-4": "chain-6", "chain-3": "none"}


@pytest.mark.parametrize(
    "drafter",
    [name if name in ("self-chain", "tree-4") else pytest.param(name, marks=pytest.mark.slow) for name in WARMERS],
)
def test_accept_length_does_not_depend_on_who_warmed_the_cache(
    hetero: Server, prompts: list[str], drafter: str
) -> None:
    """Prompts that share a long prefix, served with an empty cache and with one that another drafter's requests
    filled. cached_tokens shows that the target does not compute the prompt again."""
    prefix = "".join(prompts[1:9])
    long_prompts = [prefix + prompt for prompt in prompts if len(prompt) < 400][-24:]
    cases = cases_of(long_prompts, [drafter], max_new_tokens=64)
    warmers = cases_of(long_prompts, [WARMERS[drafter]], max_new_tokens=64)
    cold = ask(hetero, cases, concurrency=8)
    hetero.flush_cache()
    ask(hetero, warmers, concurrency=8)
    warm = ask(hetero, cases, concurrency=8)
    for answer in warm:
        meta = answer["meta_info"]
        assert meta["cached_tokens"] == meta["prompt_tokens"] - 1, meta
    print(f"{drafter}: {accept_length(cold):.3f} cold, {accept_length(warm):.3f} after {WARMERS[drafter]}")
    assert accept_length(warm) >= 0.98 * accept_length(cold)


def test_drafters_in_turn_on_one_conversation(
    hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]
) -> None:
    """Each answer becomes the next prompt, read by another drafter: nobody has ever read it all. Then the target
    itself drafts, and must accept everything over slots that none of its own requests wrote."""
    for prompt in prompts[:3]:
        text = prompt
        for drafter in (*CHAINS, *TREES, "none", "self-chain"):
            case = Case(text, drafter=drafter).with_params(max_new_tokens=40)
            answer = ask(hetero, [case])[0]
            same_tokens.answers([case], reference.answers([case]), [answer])
            text += answer["text"]
        assert_accepts_everything([answer], SELF_STEPS["self-chain"])


def test_context_outgrows_the_drafter(
    hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]
) -> None:
    """A drafter made for 96 tokens drafts while the context fits it and no longer."""
    cases = cases_of(prompts[:32], [BRIEF])
    answers = ask(hetero, cases)
    same_tokens.answers(cases, reference.answers(cases), answers)
    for answer in answers:
        meta = answer["meta_info"]
        if meta["prompt_tokens"] < BRIEF_CONTEXT - 30:
            assert num_drafted([answer]) > 0, meta
        if meta["prompt_tokens"] >= BRIEF_CONTEXT:
            assert num_drafted([answer]) == 0, meta
        assert meta["spec_verify_ct"] * 4 > num_drafted([answer]), "it drafted to the end"
