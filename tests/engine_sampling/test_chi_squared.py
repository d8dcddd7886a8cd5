"""Engine samples with speculation have the target's law: 20,000 answers for each setting, chi-squared, p > 0.001.

Tests of one server come before those of the other, so that each starts once. The mixed setting holds all the others;
they, each vocabulary mode by itself and the server without speculation are left to the slow run (about a minute each on
a free core).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.engine_sampling.conftest import Arena
from tests.engine_sampling.laws import NOTHING, ChiSquared, Tokens, against_law, of_two_samples
from tests.engine_sampling.settings import ALONE, CHAIN, GREEDY, SETTINGS, SLEM, SLRS, TLI, TREE

LOWEST_P = 0.001
MIXED = "mixed"
OTHERS = [pytest.param(setting, marks=pytest.mark.slow) for setting in SETTINGS if setting != MIXED]
Note = Callable[[str], None]


def agree(name: str, note: Note, test: Callable[[int], ChiSquared]) -> None:
    """p > 0.001, or else on fresh samples: one run in a thousand is below it by chance, a wrong law always is."""
    for number in range(2):
        result = test(number)
        note(f"{name}: chi-squared {result.statistic:.1f} with {result.freedom} degrees of freedom, p = {result.p:.4f}")
        if result.p > LOWEST_P:
            return
    raise AssertionError(f"{name}: p = {result.p:.2g}, twice")


def total(results: list[ChiSquared]) -> ChiSquared:
    return sum(results, NOTHING)


@pytest.mark.slow
@pytest.mark.parametrize("setting", ALONE)
def test_samples_of_each_alone_follow_the_exact_law(setting: str, arena: Arena, note: Note) -> None:
    def test(number: int) -> ChiSquared:
        draw = arena.draw("hetero", setting, number)
        return total([against_law(samples, arena.law(group.params)) for group, samples in draw.items()])

    agree(f"hetero, {setting} alone, exact law", note, test)
    note(f"{setting} alone: {arena.num_accepted[setting, setting]} draft tokens accepted")
    assert arena.num_accepted[setting, setting] > 1000


@pytest.mark.parametrize("setting", [MIXED, *OTHERS])
@pytest.mark.parametrize("engine", ["hetero", pytest.param("none", marks=pytest.mark.slow)])
def test_samples_follow_the_exact_law(engine: str, setting: str, arena: Arena, note: Note) -> None:
    """`none`, SGLang without speculation, shows that the law is the right one."""

    def test(number: int) -> ChiSquared:
        draw = arena.draw(engine, setting, number)
        return total([against_law(samples, arena.law(group.params)) for group, samples in draw.items()])

    agree(f"{engine}, {setting}, exact law", note, test)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_samples_agree_with_no_speculation(setting: str, arena: Arena, note: Note) -> None:
    def test(number: int) -> ChiSquared:
        one, other = arena.draw("hetero", setting, number), arena.draw("none", setting, number)
        return total([of_two_samples(one[group], other[group], arena.law(group.params)) for group in one])

    agree(f"{setting}, two samples", note, test)


def test_greedy_requests_beside_sampled_ones_stay_greedy(arena: Arena) -> None:
    (best,) = arena.law(GREEDY)
    draw = arena.draw("hetero", MIXED)
    answers: set[Tokens] = {tokens for group in draw if group.params == GREEDY for tokens in draw[group]}
    assert answers == {best}


@pytest.mark.parametrize("setting", [MIXED, *OTHERS])
def test_drafts_were_accepted(setting: str, arena: Arena, note: Note) -> None:
    """Otherwise nothing was tested."""
    arena.draw("hetero", setting)
    for drafter in (CHAIN, TREE):
        accepted = arena.num_accepted[setting, drafter]
        note(f"{setting}: {accepted} draft tokens of `{drafter}` accepted")
        assert accepted > 1000


def test_drafts_of_each_vocabulary_mode_were_accepted(arena: Arena, note: Note) -> None:
    arena.draw("hetero", MIXED)
    for drafter in (TLI, SLEM, SLRS):
        accepted = arena.num_accepted[MIXED, drafter]
        note(f"{MIXED}: {accepted} draft tokens of `{drafter}` accepted")
        assert accepted > 100
