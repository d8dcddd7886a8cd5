"""Rejection sampling of one proposed token, as functions of distributions (arXiv 2502.05202, after 2211.17192).

p is the target's distribution, never touched, [V_target]. q is the law of the proposal over the same ids: TLI's q' or
SLRS's psi. q may sum to less than 1: the rest is proposals that are no target token, which are rejected. Numbers may be
floats or Fractions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sglang_hetero_spec.vocab.psi import Probability
from sglang_hetero_spec.vocab.psi_rules import UNMAPPED

Law = Sequence[Probability]


def accept_probability(p_of_t: Probability, q_of_t: Probability) -> Probability:
    """min(1, p(t) / q(t)) for a proposed t (algorithms 3 and 4). 0 for what q never proposes."""
    if not q_of_t:
        return 0
    return 1 if p_of_t >= q_of_t else p_of_t / q_of_t


def residual(p: Law, q: Law) -> list[Probability]:
    """What to draw from after a rejection: max(0, p - q), normalised. [V_target].

    Unmapped mass takes part as what q lacks to 1. Where nothing is left (q is p, nothing is ever rejected): p.
    """
    left = [max(a - b, 0) for a, b in zip(p, q, strict=True)]
    total = sum(left)
    return [each / total for each in left] if total else list(p)


def keep_probability(p_of_t: Probability, q_of_t: Probability) -> Probability:
    """max(0, 1 - q(t) / p(t)): how likely a t drawn from p is kept as a draw from the residual.

    Drawing from p until one is kept gives `residual` from q(t) of the drawn tokens alone.
    """
    return 1 - q_of_t / p_of_t if p_of_t > q_of_t else 0


def resample(
    from_target: Callable[[], int],
    p: Law,
    q_of: Callable[[int], Probability],
    uniform: Callable[[], Probability],
    max_draws: int = 1000,
) -> int | None:
    """A draw from the residual by `keep_probability`; None if none was kept: then take it from `residual`, all of q.

    uniform: from [0, 1).
    """
    for _ in range(max_draws):
        token = from_target()
        if uniform() < keep_probability(p[token], q_of(token)):
            return token
    return None


def step(
    proposed: int, p: Law, q: Law, uniform: Callable[[], Probability], draw_from: Callable[[Law], int]
) -> tuple[int, bool]:
    """The token to write, and whether it is the proposed one. proposed: target id or UNMAPPED. uniform: from [0, 1)."""
    if proposed != UNMAPPED and uniform() < accept_probability(p[proposed], q[proposed]):
        return proposed, True
    return draw_from(residual(p, q)), False


def tli_law(q: Law, draft_to_target: Sequence[int], num_target: int) -> list[Probability] | None:
    """TLI's q': the drafter's distribution on the intersection, renormalised, at target ids (algorithm 4).

    q: [V_draft]. draft_to_target: [V_draft], -1 unmapped, one-to-one otherwise. Returns [V_target], or None where the
    drafter has no mass on the intersection: then there is nothing to propose, and the token is drawn from p.
    """
    total = sum(weight for weight, target_id in zip(q, draft_to_target, strict=True) if target_id >= 0)
    if not total:
        return None
    law: list[Probability] = [0] * num_target
    for weight, target_id in zip(q, draft_to_target, strict=True):
        if target_id >= 0:
            law[target_id] = weight / total
    return law
