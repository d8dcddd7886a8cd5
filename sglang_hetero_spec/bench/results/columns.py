"""Records as columns: what is summed, by prompt and by repetition."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from sglang_hetero_spec.bench.records import RequestRecord

COUNTS = ("prompt_tokens", "completion_tokens", "seconds", "ttft", "verify_steps", "proposed", "correct")


@dataclass(frozen=True)
class Columns:
    """Requests of one arm in one setting. prompt, repetition: int64 [N]; values: float64 [N] each, NaN where it is not
    known, so that a sum over something unknown is unknown."""

    records: tuple[RequestRecord, ...]
    prompt: np.ndarray
    repetition: np.ndarray
    values: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def prompts(self) -> np.ndarray:
        """int64 [P], sorted: the different prompts."""
        return np.unique(self.prompt)

    @property
    def repetitions(self) -> tuple[int, ...]:
        return tuple(int(number) for number in np.unique(self.repetition))

    def total(self, name: str) -> float:
        return float(self.values[name].sum())

    def by_prompt(self, name: str, prompts: np.ndarray) -> np.ndarray:
        """float64 [P]: sums over all repetitions of each of `prompts` (sorted), each of which has a request."""
        return np.bincount(np.searchsorted(prompts, self.prompt), self.values[name], minlength=len(prompts))

    def where(self, keep: Callable[[RequestRecord], bool]) -> Columns:
        return columns(record for record in self.records if keep(record))


def columns(records: Iterable[RequestRecord]) -> Columns:
    rows = tuple(records)
    values = {name: np.array([_number(getattr(row, name)) for row in rows], dtype=np.float64) for name in COUNTS}
    return Columns(
        records=rows,
        prompt=np.array([row.prompt for row in rows], dtype=np.int64),
        repetition=np.array([row.repetition for row in rows], dtype=np.int64),
        values=values | {"requests": np.ones(len(rows))},
    )


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def quotient(over: float, under: float) -> float | None:
    """over / under; None where one is not known, or nothing was counted."""
    if np.isnan(over) or np.isnan(under) or under == 0:
        return None
    return float(over / under)


def known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def count(value: float) -> int | None:
    return None if np.isnan(value) else round(value)
