"""How many tokens a verify step brings, by drafter and task, from the counts of a run's requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from sglang_hetero_spec.bench.records import RequestRecord

NOBODY = ""  # who drafts where nobody does


@dataclass(frozen=True)
class Accept:
    """Of requests with verify steps. steps: those (where nobody drafts: decode steps); tokens: committed by them, which
    is all completion tokens but each request's first, the prefill's; proposed: draft tokens verified. each: (steps,
    tokens) of each request."""

    steps: int = 0
    tokens: int = 0
    proposed: int = 0
    each: tuple[tuple[int, int], ...] = ()

    def __add__(self, other: Accept) -> Accept:
        return Accept(
            self.steps + other.steps,
            self.tokens + other.tokens,
            self.proposed + other.proposed,
            self.each + other.each,
        )

    @property
    def tokens_per_step(self) -> float:
        """The accept length, bonus included; 1 where nobody drafts."""
        return self.tokens / self.steps

    @property
    def width(self) -> float:
        """Tokens of a request in a verify forward: its draft tokens and the last committed one."""
        return 1 + self.proposed / self.steps

    def drawn(self, generator: np.random.Generator) -> float:
        """Tokens per step of one of the requests, of longer ones more often: as many steps are then expected for a
        token as all of them needed."""
        steps, tokens = np.array(self.each, dtype=float).T
        one = generator.choice(len(tokens), p=tokens / tokens.sum())
        return float(tokens[one] / steps[one])


def drafter_of(record: RequestRecord) -> str:
    """Who drafted: the pool's drafter, `(arm)` where the server has one way only, NOBODY where nobody did."""
    if not record.proposed:
        return NOBODY
    return record.drafter if record.drafter is not None else f"({record.arm})"


def accept_of(record: RequestRecord) -> Accept:
    decoded = max(record.completion_tokens - 1, 0)
    steps = decoded if drafter_of(record) == NOBODY else record.verify_steps or 0
    if not steps or not decoded:
        return Accept()
    return Accept(steps, decoded, record.proposed or 0, ((steps, decoded),))


def accept_table(records: Iterable[RequestRecord]) -> dict[tuple[str, str], Accept]:
    """(drafter, task) -> what its requests counted together."""
    table: dict[tuple[str, str], Accept] = {}
    for record in records:
        key = drafter_of(record), record.task
        table[key] = table.get(key, Accept()) + accept_of(record)
    return {key: accept for key, accept in table.items() if accept.steps > 0}


def missing(table: Mapping[tuple[str, str], Accept], records: Iterable[RequestRecord]) -> str | None:
    """The first pair of drafter and task that `records` need and the table lacks, in words; None if it has all."""
    for record in records:
        drafter = drafter_of(record)
        if drafter != NOBODY and record.completion_tokens > 1 and (drafter, record.task) not in table:
            return f"drafter `{drafter}` on task `{record.task}`"
    return None
