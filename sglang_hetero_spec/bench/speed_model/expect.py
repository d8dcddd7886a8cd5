"""What to expect of an 8B and a 70B target on H100s, with drafters of a given size.

The step is the one of build/profile/mixed.py, which is used as it is: a drafter in the batch drafts once for all of its
requests, how many those are is binomial, and the target verifies all in one forward. What a forward takes is the
roofline's. How far drafters agree with their target cannot be computed: it is taken from a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sglang_hetero_spec.bench.speed_model.carried import TaskAccepts
from sglang_hetero_spec.bench.speed_model.roofline import (
    DRAFTERS,
    H100,
    LLAMA_8B,
    LLAMA_70B,
    Accelerator,
    Efficiency,
    Shape,
    fits,
    forward_seconds,
)
from sglang_hetero_spec.build.profile.mixed import CostTable, mixed_seconds_per_token

TARGETS = ((LLAMA_8B, H100), (LLAMA_70B, H100.times(4)))
BATCHES = (1, 8, 32, 64)
# Tokens of the prompt and of the answer; half of the answer is in the KV cache on average.
PROMPT, ANSWER = 512, 256
CONTEXT = PROMPT + ANSWER // 2


@dataclass(frozen=True)
class Place:
    """A target on its accelerators with drafters of one shape, `batch` requests in flight.

    graphs: whether draft forwards are CUDA graphs, as the target's are.
    """

    target: Shape
    where: Accelerator
    drafter: Shape
    batch: int
    graphs: bool

    def none(self, efficiency: Efficiency) -> np.ndarray:
        """Tokens per second [N] without speculation."""
        step = forward_seconds(self.target, self.where, self.batch, self.batch, CONTEXT, efficiency)
        return 1 / ((step + efficiency.host) / self.batch + self._prefill(self.target, efficiency))

    def verify(self, num_steps: int, efficiency: Efficiency) -> np.ndarray:
        """Seconds [N] of a step beside drafting."""
        tokens = self.batch * (num_steps + 1)
        return (
            forward_seconds(self.target, self.where, tokens, self.batch, CONTEXT, efficiency) + efficiency.speculation
        )

    def draft(self, num_steps: int, efficiency: Efficiency) -> np.ndarray:
        """Seconds [N, batch + 1] of one drafter's proposal for 0, 1, ... `batch` requests."""
        how = efficiency if self.graphs else efficiency.eager
        curve = [np.zeros_like(efficiency.host)]
        for requests in range(1, self.batch + 1):
            one = forward_seconds(self.drafter, self.where, requests, requests, CONTEXT, how)
            curve.append(num_steps * one)
        return np.stack(curve, axis=1)

    def other(self, efficiency: Efficiency) -> np.ndarray:
        """Seconds [N] per token beside steps: target and drafter read the prompt."""
        return self._prefill(self.target, efficiency) + self._prefill(self.drafter, efficiency)

    def _prefill(self, shape: Shape, efficiency: Efficiency) -> np.ndarray:
        return forward_seconds(shape, self.where, PROMPT, 1, PROMPT / 2, efficiency) / ANSWER

    def fits(self, drafters: int) -> bool:
        """Whether target, that many drafters and everybody's KV are in memory together."""
        longest = PROMPT + ANSWER
        beside = drafters * (self.drafter.params * 2 + self.batch * longest * self.drafter.kv_bytes)
        return fits(self.target, self.where, self.batch, longest, beside)


def speeds(place: Place, accepts: TaskAccepts, num_steps: int, efficiency: Efficiency, *, together: bool) -> np.ndarray:
    """Tokens per second [N], one for each draw of efficiencies and resample of prompts, of chains of `num_steps`.

    Every task writes as many tokens. together: whether all drafters propose in one forward (adapters of one base, or
    one drafter for all); otherwise each drafter of `accepts` proposes in forwards of its own.
    """
    lengths = accepts.lengths(num_steps)
    verify, draft = place.verify(num_steps, efficiency), place.draft(num_steps, efficiency)
    other = place.other(efficiency)
    names = [""] * len(accepts.tasks) if together else list(accepts.drafters)
    choices = np.array([[sorted(set(names)).index(name) for name in names]])
    shape = (len(names), len(set(names)))
    weights = np.full(len(names), 1 / len(names))
    out = np.empty(len(verify))
    for n in range(len(out)):
        table = CostTable(
            weights=weights,
            forwards=np.repeat(1 / (lengths[n % len(lengths)] * place.batch)[:, None], shape[1], axis=1),
            verify=np.full(shape, verify[n]),
            other=np.full(shape, other[n]),
            draft=np.broadcast_to(draft[n], (*shape, place.batch + 1)),
            fixed_width=True,
        )
        out[n] = 1 / mixed_seconds_per_token(table, choices)[0]
    return out


def break_even(place: Place, drafters: int, num_steps: int, efficiency: Efficiency) -> np.ndarray:
    """The accept length [N] from which on chains of `num_steps` pay, with that many equally loaded drafters that
    propose one after the other."""
    per_token = 1 / place.none(efficiency) - place.other(efficiency)
    number = np.arange(place.batch + 1)
    share = 1 / drafters
    draft = drafters * place.draft(num_steps, efficiency) @ _binomial(place.batch, number, share)
    step = draft + place.verify(num_steps, efficiency)
    return np.where(per_token > 0, step / (place.batch * np.maximum(per_token, 1e-12)), np.inf)


def _binomial(batch: int, number: np.ndarray, share: float) -> np.ndarray:
    from scipy.stats import binom

    return binom.pmf(number, batch, share)


@dataclass(frozen=True)
class Pooling:
    """A way to serve: its title, the run's accept rates that it has, and whether one forward drafts for all."""

    name: str
    accepts: TaskAccepts
    together: bool

    @property
    def drafters(self) -> int:
        return 1 if self.together else len(set(self.accepts.drafters))


def rows(poolings: Sequence[Pooling], efficiency: Efficiency, *, graphs: bool) -> Iterator[dict[str, object]]:
    """A row for each target, drafter size, batch and way to serve, JSON-able; numbers are [5, 50, 95%] of the draws.
    num_steps: of the fastest chain; most_steps: of the run's, for which the break-even accept length is."""
    for target, where in TARGETS:
        for drafter in DRAFTERS.values():
            for batch in BATCHES:
                place = Place(target, where, drafter, batch, graphs)
                for pooling in poolings:
                    yield _row(place, pooling, efficiency)


def best_steps(place: Place, pooling: Pooling, efficiency: Efficiency) -> int:
    """The chain length that is fastest at the middle of all ranges; not longer than the run's."""
    middle = Efficiency(**{name: np.array([np.median(draws)]) for name, draws in vars(efficiency).items()})
    found = [
        speeds(place, pooling.accepts, num_steps, middle, together=pooling.together)[0]
        for num_steps in range(1, pooling.accepts.depth + 1)
    ]
    return int(np.argmax(found)) + 1


def _row(place: Place, pooling: Pooling, efficiency: Efficiency) -> dict[str, object]:
    row: dict[str, object] = {
        "target": place.target.name,
        "where": f"{place.where.number} x {place.where.name}" if place.where.number > 1 else place.where.name,
        "drafter": place.drafter.name,
        "batch": place.batch,
        "pooling": pooling.name,
        "drafters": pooling.drafters,
        "graphs": place.graphs,
    }
    if not place.fits(pooling.drafters):
        return row | {"why_not": "does not fit in 90% of the memory."}
    num_steps = best_steps(place, pooling, efficiency)
    most_steps = pooling.accepts.depth
    none = place.none(efficiency)
    speed = speeds(place, pooling.accepts, num_steps, efficiency, together=pooling.together)
    return row | {
        "why_not": None,
        "num_steps": num_steps,
        "accept_length": _quantiles(pooling.accepts.overall(num_steps)),
        "none": _quantiles(none),
        "tokens_per_second": _quantiles(speed),
        "speedup": _quantiles(speed / none),
        "most_steps": most_steps,
        "break_even": _quantiles(break_even(place, pooling.drafters, most_steps, efficiency)),
    }


def _quantiles(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.quantile(values, (0.05, 0.5, 0.95))]
