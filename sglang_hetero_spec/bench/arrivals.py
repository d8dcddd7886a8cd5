"""When requests are sent: so many in flight, or at the times of a Poisson process."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from sglang_hetero_spec.serving.flags import MAX_RUNNING_REQUESTS

# More that arrive meanwhile wait in the server's queue (serving/flags.py).
MAX_OPEN = MAX_RUNNING_REQUESTS


@dataclass(frozen=True)
class Setting:
    """concurrency: requests in flight; or rate: requests a second, on average. One of them."""

    concurrency: int | None = None
    rate: float | None = None

    @property
    def name(self) -> str:
        """`c4` or `r2.5`, as in the records."""
        return f"c{self.concurrency}" if self.concurrency is not None else f"r{self.rate:g}"

    @property
    def words(self) -> str:
        return f"{self.concurrency} in flight" if self.concurrency is not None else f"{self.rate:g} requests a second"

    def busiest(self, num_prompts: int) -> int:
        """Requests that may be served at once."""
        return min(self.concurrency or MAX_OPEN, num_prompts)


def settings_of(concurrency: Iterable[int], rates: Iterable[float]) -> tuple[Setting, ...]:
    """In the order given; one given twice counts once."""
    found = [*(Setting(concurrency=number) for number in concurrency), *(Setting(rate=rate) for rate in rates)]
    return tuple(dict.fromkeys(found))


def poisson(rate: float, number: int, seed: str) -> list[float]:
    """Seconds after the start at which `number` requests arrive, ascending; the first one at 0.

    The same for the same seed, so that all arms of a repetition meet the same arrivals.
    """
    draw = random.Random(f"{seed}/{rate!r}")
    return list(accumulate((draw.expovariate(rate) for _ in range(number - 1)), initial=0.0))
