"""Greedy output is the target's own under other server flags, each with a server of its own."""

from __future__ import annotations

import json

import pytest

from tests.engine.cases import cases_of
from tests.engine.compare import Comparison
from tests.engine.conftest import assert_nothing_left
from tests.engine.figures import accept_length, served_by
from tests.engine.fleet import Fleet, Reference, ask
from tests.engine.pools import EVERYONE, SELF, Models

# Holds about a quarter of what 16 requests grow to, with the slots that each step reserves; all are admitted still.
TIGHT = ("--max-total-tokens", "1152", "--schedule-conservativeness", "0.1")


@pytest.mark.slow
def test_without_radix_cache(fleet: Fleet, reference: Reference, same_tokens: Comparison, prompts: list[str]) -> None:
    server = fleet.special("--disable-radix-cache")
    for _ in range(2):
        cases = cases_of(prompts, EVERYONE)
        answers = ask(server, cases)
        same_tokens.answers(cases, reference.answers(cases), answers)
        assert all(answer["meta_info"]["cached_tokens"] == 0 for answer in answers)
    assert_nothing_left(server)


@pytest.mark.slow
def test_chunked_prefill(fleet: Fleet, reference: Reference, same_tokens: Comparison, prompts: list[str]) -> None:
    """Chunks of 32 tokens: most prompts take several."""
    server = fleet.special("--chunked-prefill-size", "32")
    cases = cases_of(prompts, (*EVERYONE, *SELF))
    answers = ask(server, cases)
    assert sum(answer["meta_info"]["prompt_tokens"] > 3 * 32 for answer in answers) >= 4
    same_tokens.answers(cases, reference.answers(cases), answers)
    assert_nothing_left(server)


@pytest.fixture(scope="module")
def endless(models: Models) -> dict:
    """Sampling parameters of requests that do not end early. Of those with ignore_eos, SGLang knows the length and
    admits no more than will fit."""
    eos = json.loads((models.target / "config.json").read_text())["eos_token_id"]
    return {"ignore_eos": False, "logit_bias": {str(eos): -100.0}}


@pytest.mark.slow
def test_retraction(
    fleet: Fleet, reference: Reference, same_tokens: Comparison, prompts: list[str], endless: dict
) -> None:
    """A KV pool that cannot hold what it admitted: requests are retracted and come back, twice over, the second
    time with a cache that holds parts of the first."""
    server = fleet.special(*TIGHT)
    num_retractions = 0
    # How often SGLang retracts depends on the answers' lengths: twice over, and again until it did so four times.
    for number, drafters in enumerate((EVERYONE, (*SELF, "none", "tree-4")) * 3):
        if number >= 2 and number % 2 == 0 and num_retractions >= 4:
            break
        cases = cases_of(prompts[:40], drafters, **endless)
        answers = ask(server, cases)
        same_tokens.answers(cases, reference.answers(cases), answers)
        num_retractions += sum(answer["meta_info"]["num_retractions"] for answer in answers)
    print(f"{num_retractions} retractions")
    assert num_retractions >= 4
    assert "Retract requests" in server.log.read_text()
    # A retracted request's drafter reads again what it lost: as much is accepted as where nothing is retracted.
    undisturbed = ask(fleet.usual("hetero"), cases)
    for drafter in (*SELF, "tree-4"):
        lengths = [accept_length(served_by(drafter, cases, some)) for some in (answers, undisturbed)]
        print(f"{drafter}: {lengths[0]:.3f} with retractions, {lengths[1]:.3f} without")
        assert lengths[0] >= 0.98 * lengths[1]
    assert_nothing_left(server)


@pytest.mark.slow
def test_chunked_prefill_and_retraction(
    fleet: Fleet, reference: Reference, same_tokens: Comparison, prompts: list[str], endless: dict
) -> None:
    server = fleet.special(*TIGHT, "--chunked-prefill-size", "32")
    cases = cases_of(prompts[:32], (*EVERYONE, *SELF), **endless)
    answers = ask(server, cases)
    same_tokens.answers(cases, reference.answers(cases), answers)
    assert sum(answer["meta_info"]["num_retractions"] for answer in answers) > 0
    assert_nothing_left(server)
