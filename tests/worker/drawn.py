"""Requests whose drafts are drawn at random: every chain that could be drawn, each with every coin (enumeration.py)."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache

import torch

from sglang_hetero_spec.drafters.tree import DraftLaw
from tests.worker.enumeration import Case, Law, Params, emitted_laws, sampler_law

ROOT = 0
# Tokens behind the root -> a row for each target token: the target's logits, or the law of the next draft, which may
# sum to less than 1.
Rows = Callable[[tuple[int, ...]], torch.Tensor]


@dataclass(frozen=True)
class Request:
    """One request of a verify step, whose drafter proposes `depth` tokens in a chain."""

    logits: Rows
    draft: Rows
    depth: int
    params: Params = field(default_factory=Params)


def random_logits(seed: object, vocab_size: int, spread: float = 1.5) -> Rows:
    @cache
    def row(prefix: tuple[int, ...]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(random.Random(f"{seed}{prefix}").randrange(1 << 30))
        return torch.randn(vocab_size, generator=generator) * spread

    return row


def target_law(request: Request, any_filter: bool) -> Rows:
    """What the target samples from behind a prefix, float64 [V]."""

    @cache
    def row(prefix: tuple[int, ...]) -> torch.Tensor:
        return sampler_law(Case([-1], [ROOT], request.logits(prefix)[None], request.params), any_filter)[0]

    return row


def cases_of(request: Request) -> list[tuple[Case, float]]:
    """Each chain that could be drawn, and its probability. What would be drawn behind a proposal that is no target
    token is not enumerated: anything may stand there."""
    found: list[tuple[Case, float]] = []
    todo: list[tuple[tuple[int, ...], bool, float]] = [((), False, 1.0)]
    while todo:
        drafts, is_void, weight = todo.pop()
        if is_void or len(drafts) == request.depth:
            found.append((_case(request, drafts, is_void), weight))
            continue
        q = request.draft(drafts).double()
        todo += [((*drafts, t), False, weight * p) for t, p in enumerate(q.tolist()) if p > 0]
        if 1 - q.sum().item() > 1e-6:
            todo.append(((*drafts, 0), True, weight * (1 - q.sum().item())))
    return found


def _case(request: Request, drafts: tuple[int, ...], is_void: bool) -> Case:
    missing = request.depth - len(drafts)
    drafts, num_known = (*drafts, *(1,) * missing), len(drafts) - is_void
    prefixes = [drafts[:i] for i in range(request.depth + 1)]
    probs = torch.stack([request.draft(prefix).float() for prefix in prefixes[:-1]])
    probs[num_known + 1 :] = 0.5
    void = [is_void and i == num_known for i in range(request.depth)]
    logits = torch.stack([request.logits(prefix) for prefix in prefixes])
    logits[num_known + 1 :] = 50.0 if is_void else logits[num_known + 1 :]
    return Case(
        parents=list(range(-1, request.depth)),
        tokens=[ROOT, *drafts],
        logits=logits,
        params=request.params,
        drawn=DraftLaw(probs[None], void=torch.tensor([void])),
    )


@dataclass(frozen=True)
class Outcome:
    """law: tokens emitted by the step -> probability, over all drafts and coins. lost: probability left out."""

    law: Law
    lost: float

    def at_least(self, num_tokens: int) -> float:
        return sum(p for tokens, p in self.law.items() if len(tokens) >= num_tokens)


def outcomes(
    requests: list[Request], width: int, monkeypatch, beside: tuple[Case, ...] = (), by_law: bool = True
) -> tuple[list[Outcome], list[tuple[Law, float, int]]]:
    """Of all requests, verified in one batch with the cases `beside` them, whose own outcomes come second.

    by_law: False for the rule that does not look at how drafts were drawn.
    """
    expanded = [cases_of(request) for request in requests]
    cases = [case if by_law else replace(case, drawn=None) for each in expanded for case, _ in each]
    laws = emitted_laws([*cases, *beside], width, monkeypatch)
    result = []
    for each in expanded:
        merged: Law = {}
        total_lost = 0.0
        for _, weight in each:
            law, lost, _ = laws.pop(0)
            total_lost += weight * lost
            for tokens, p in law.items():
                merged[tokens] = merged.get(tokens, 0.0) + weight * p
        result.append(Outcome(merged, total_lost))
    return result, laws


def continued(law: Law, target: Rows, length: int) -> Law:
    """What was emitted, and behind it what the target goes on with, up to `length` tokens."""
    found: Law = {}
    for tokens, mass in law.items():
        for longer, p in _sequences(target, tokens, length).items():
            found[longer] = found.get(longer, 0.0) + mass * p
    return found


def _sequences(target: Rows, start: tuple[int, ...], length: int) -> Law:
    level: Law = {start: 1.0}
    for _ in range(length - len(start)):
        level = {(*s, t): p * q for s, p in level.items() for t, q in enumerate(target(s).tolist()) if q > 0}
    return level


def wanted(target: Rows, length: int) -> Law:
    """The target's own law of `length` tokens."""
    return _sequences(target, (), length)


def accepted_mass(request: Request, target: Rows, num_drafts: int) -> float:
    """P(the first `num_drafts` drafts are accepted): the sum of min(p, q) along all paths."""
    level: Law = {(): 1.0}
    for _ in range(num_drafts):
        level = {
            (*s, t): mass * w
            for s, mass in level.items()
            for t, w in enumerate(torch.minimum(target(s), request.draft(s).double()).tolist())
            if w > 0
        }
    return sum(level.values())
