"""Small random laws in whole fractions, and what comes out of a rejection step, by full enumeration."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from fractions import Fraction

from sglang_hetero_spec.vocab import accept
from sglang_hetero_spec.vocab.psi_rules import UNMAPPED

Law = list[Fraction]


def random_law(size: int, *seed: object, zeros: bool = True) -> Law:
    """The same for the same seed. zeros: some entries may be impossible."""
    rng = random.Random(repr(seed))
    weights = [rng.randrange(0 if zeros else 1, 6) for _ in range(size)]
    weights[rng.randrange(size)] += 1
    return [Fraction(weight, sum(weights)) for weight in weights]


def output_law(p: Law, proposals: dict[int, Fraction], q: Sequence[Fraction]) -> dict[tuple[int, bool], Fraction]:
    """(token, whether it was the proposed one) -> probability. proposals: their law, UNMAPPED among them."""
    found: dict[tuple[int, bool], Fraction] = {}

    def add(proposed: int, coin: Fraction, weight: Fraction) -> None:
        laws: list[Sequence[Fraction]] = []
        token, is_proposed = accept.step(proposed, p, q, lambda: coin, lambda law: laws.append(law) or -1)
        outcomes = [(token, Fraction(1))] if is_proposed else list(enumerate(laws[0]))
        for outcome, chance in outcomes:
            key = (outcome, is_proposed)
            found[key] = found.get(key, Fraction(0)) + weight * chance

    for proposed, mass in proposals.items():
        edge = Fraction(0) if proposed == UNMAPPED else Fraction(accept.accept_probability(p[proposed], q[proposed]))
        # A coin below the edge accepts, one from it on does not: one of each kind stands for all.
        if edge > 0:
            add(proposed, Fraction(0), mass * edge)
        if edge < 1:
            add(proposed, edge, mass * (1 - edge))
    return found


def marginal(found: dict[tuple[int, bool], Fraction], size: int) -> Law:
    return [sum((w for (token, _), w in found.items() if token == i), Fraction(0)) for i in range(size)]


def accepted(found: dict[tuple[int, bool], Fraction]) -> Fraction:
    return sum((weight for (_, is_proposed), weight in found.items() if is_proposed), Fraction(0))


def every_run(run: Callable[[Callable[[tuple[int, ...]], int]], int], law_of: Callable[[tuple[int, ...]], Law]) -> dict:
    """What `run` returns, with its probability, over all tokens that it could draw from law_of(sequence)."""
    found: dict[int, Fraction] = {}
    todo: list[tuple[list[int], Fraction]] = [([], Fraction(1))]
    while todo:
        script, weight = todo.pop()
        seen: list[tuple[int, ...]] = []

        def next_token(sequence: tuple[int, ...], script: list[int] = script, seen: list = seen) -> int:
            seen.append(sequence)
            if len(seen) > len(script):
                raise LookupError
            return script[len(seen) - 1]

        try:
            result = run(next_token)
        except LookupError:
            todo += [([*script, i], weight * chance) for i, chance in enumerate(law_of(seen[-1])) if chance]
        else:
            found[result] = found.get(result, Fraction(0)) + weight
    return found
