"""Drafts drawn at random and verified against their law: the emitted tokens are the target's, by full enumeration.

All drafts that could be drawn are weighted with the law that they are drawn from, all coins with their probability.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from tests.worker.drawn import (
    Request,
    Rows,
    accepted_mass,
    cases_of,
    continued,
    outcomes,
    random_logits,
    target_law,
    wanted,
)
from tests.worker.enumeration import GREEDY, Case, Params, _verify, random_case, sampler_law, wanted_law
from tests.worker.test_sampling_exact import PARAMS, TREES, assert_same_law, one_rank

__all__ = ["one_rank"]

pytestmark = pytest.mark.usefixtures("one_rank")

V = 4
IMPOSSIBLE = -1e4


def normalised(logits: Rows, seed: object) -> Rows:
    row = random_logits(f"draft{seed}", V)
    return lambda prefix: row(prefix).softmax(-1)


def with_unmapped_mass(logits: Rows, seed: object) -> Rows:
    """Down to no mass at all behind some prefixes."""
    row = normalised(logits, seed)
    return lambda prefix: row(prefix) * [0.6, 0.9, 0.0][(sum(prefix) + len(prefix)) % 3]


def the_targets_own(logits: Rows, seed: object) -> Rows:
    """As drawn at temperature 1 without filters."""
    return lambda prefix: logits(prefix).softmax(-1)


def with_zeros(logits: Rows, seed: object) -> Rows:
    row = random_logits(f"zeros{seed}", V)

    def law(prefix: tuple[int, ...]) -> torch.Tensor:
        masked = row(prefix).masked_fill(row(prefix) < row(prefix).median(), IMPOSSIBLE)
        return masked.softmax(-1)

    return law


def impossible_for_the_target(logits: Rows, seed: object) -> Rows:
    """All its mass where the target has none."""
    row = random_logits(f"disjoint{seed}", V)
    return lambda prefix: row(prefix).masked_fill(logits(prefix) > IMPOSSIBLE, IMPOSSIBLE).softmax(-1)


def half_impossible(seed: object) -> Rows:
    row = random_logits(f"half{seed}", V)
    return lambda prefix: row(prefix).masked_fill(row(prefix) < row(prefix).median() + 1e-6, IMPOSSIBLE)


Maker = Callable[[Rows, object], Rows]
LAWS: dict[str, Maker] = {
    "normalised": normalised,
    "with unmapped mass": with_unmapped_mass,
    "the target's own": the_targets_own,
    "with zeros": with_zeros,
    "impossible for the target": impossible_for_the_target,
}


def request(seed: object, maker: Maker, depth: int, params: Params) -> Request:
    logits = half_impossible(seed) if maker is impossible_for_the_target else random_logits(seed, V)
    return Request(logits, maker(logits, seed), depth, params)


def has_filter(params: Params) -> bool:
    return params != Params(params.temperature)


def check(requests: list[Request], width: int, monkeypatch, beside: tuple[Case, ...] = ()) -> None:
    """The step's tokens, continued by the target, have the target's law; drafts are accepted as theory says."""
    any_filter = any(has_filter(each.params) for each in (*requests, *beside))
    found, others = outcomes(requests, width, monkeypatch, beside)
    for each, outcome in zip(requests, found, strict=True):
        target = target_law(each, any_filter)
        assert_same_law(continued(outcome.law, target, each.depth + 1), wanted(target, each.depth + 1), outcome.lost)
        for num_drafts in range(1, each.depth + 1):
            theory = accepted_mass(each, target, num_drafts)
            assert outcome.at_least(num_drafts + 1) == pytest.approx(theory, abs=outcome.lost + 4e-6)
    for case, (law, lost, _) in zip(beside, others, strict=True):
        assert_same_law(law, wanted_law(case, sampler_law(case, any_filter)), lost)


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS.keys())
@pytest.mark.parametrize("maker", LAWS.values(), ids=LAWS.keys())
def test_the_emitted_tokens_are_the_targets(maker: Maker, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [request(f"{params}", maker, 2, params), request(f"{params}", maker, 1, params)]
    beside = [random_case(random.Random(1), [-1], V, Params())] if params == GREEDY else []
    check(requests, 3, monkeypatch, tuple(beside))


@pytest.mark.parametrize("params", [Params(0.7), Params(1.3, top_k=3, top_p=0.9)])
@pytest.mark.parametrize("maker", [normalised, with_unmapped_mass])
def test_chains_of_three(maker: Maker, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    check([request("three", maker, 3, params)], 4, monkeypatch)


@pytest.mark.parametrize("seed", range(5))
def test_beside_trees_greedy_requests_and_those_without_drafts(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch of everything, each request with parameters of its own, all padded to one width."""
    rng = random.Random(seed)
    params = list(PARAMS.values())
    requests = [
        request(f"{seed}{maker}", maker, rng.choice([1, 2]), rng.choice(params))
        for maker in rng.sample(list(LAWS.values()), 3)
    ]
    requests.append(request(seed, with_zeros, 2, GREEDY))
    forms = [TREES["root alone"], TREES["branching twice"], TREES["chain"], TREES["siblings"]]
    beside = [random_case(rng, form, V, rng.choice([*params, GREEDY])) for form in forms]
    beside += [random_case(rng, TREES["deep and wide"], V, GREEDY), not_drafted_for(rng, 3)]
    check(requests, 7, monkeypatch, tuple(beside))


def not_drafted_for(rng: random.Random, width: int) -> Case:
    """A request of a drafter that drew for others of the batch and had no room for this one."""
    case = cases_of(request(rng.random(), normalised, width - 1, Params(0.9)))[0][0]
    law = type(case.drawn)(torch.zeros_like(case.drawn.probs), void=torch.zeros_like(case.drawn.void))
    return Case([-1] * width, case.tokens[:1] * width, case.logits, case.params, drawn=law, num_proposed=0)


@pytest.mark.parametrize("params", [Params(), Params(0.7, top_k=3, top_p=0.7), Params(2.0)])
@pytest.mark.parametrize("maker", [normalised, the_targets_own, with_zeros, impossible_for_the_target])
def test_not_below_the_rule_that_does_not_look_at_the_law(
    maker: Maker, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same drafts, verified as those of trees are."""
    each = request(f"{params}", maker, 2, params)
    (by_law,), _ = outcomes([each], 3, monkeypatch)
    (target_only,), _ = outcomes([each], 3, monkeypatch, by_law=False)
    for num_tokens in (2, 3):
        assert by_law.at_least(num_tokens) >= target_only.at_least(num_tokens) - by_law.lost - 1e-5
    if maker in (normalised, the_targets_own) and not has_filter(params):
        assert by_law.at_least(2) > target_only.at_least(2) + 0.05


def test_what_the_target_never_says_is_not_accepted_with_a_coin_of_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    case, _ = cases_of(request("zero", impossible_for_the_target, 1, Params()))[0]
    assert case.logits[0, case.tokens[1]] == IMPOSSIBLE
    ((tokens,),) = _verify([case], [torch.zeros(1, 3, dtype=torch.float64)], 2, monkeypatch, None)
    assert len(tokens) == 1 and case.logits[0, tokens[0]] > IMPOSSIBLE
