"""What the parts of serving cost, as sums of counts times seconds, and how these are fitted.

A part of a server's time is linear in a few counts of the work that was done (`PARTS`):

- target: a verify forward costs a, something more with more than one token (where a CPU multiplies matrices, not a
  vector and a matrix), and b * tokens in it + c * tokens of context that its requests have;
- host: a step costs a + b * requests in it;
- rest (what the wall clock sees beside steps): a for each prefill forward, b for each prompt token, and what the
  scheduler does between steps, a for each step and b for each request in it;
- draft:NAME: a proposal costs a + b * requests drafted for + c * prompt tokens that the drafter has to read first.

The seconds are found by non-negative least squares (scipy): nothing takes less than no time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import nnls

TARGET, HOST, REST, DRAFT = "target", "host", "rest", "draft:"
PARTS: Mapping[str, tuple[str, ...]] = {
    TARGET: ("steps", "wide_steps", "tokens", "context"),
    HOST: ("steps", "requests"),
    REST: ("prefills", "prompt_tokens", "steps", "requests"),
    DRAFT: ("proposals", "drafted", "read"),
}


def terms_of(part: str) -> tuple[str, ...]:
    return PARTS[DRAFT if part.startswith(DRAFT) else part]


@dataclass
class Counts:
    """Work done in a block or a step of it.

    steps: verify forwards; wide_steps: those of more than one token; tokens: in them, padding included; context:
    committed tokens of the requests in them; requests: in them; prefills: prefill forwards; prompt_tokens: in those;
    drafts: by drafter, (proposals, requests drafted for, prompt tokens read).
    """

    steps: float = 0.0
    wide_steps: float = 0.0
    tokens: float = 0.0
    context: float = 0.0
    requests: float = 0.0
    prefills: float = 0.0
    prompt_tokens: float = 0.0
    drafts: dict[str, list[float]] = field(default_factory=dict)

    def of(self, part: str) -> np.ndarray:
        """The counts that `part` is linear in; float64 [terms]."""
        if part.startswith(DRAFT):
            return np.array(self.drafts.get(part.removeprefix(DRAFT), (0.0, 0.0, 0.0)))
        return np.array([getattr(self, name) for name in PARTS[part]])

    @property
    def mostly_single(self) -> bool:
        """Whether most forwards have a single token."""
        return self.wide_steps < self.steps / 2

    @property
    def parts(self) -> tuple[str, ...]:
        return (TARGET, HOST, REST, *(DRAFT + name for name in self.drafts))


@dataclass(frozen=True)
class Costs:
    """Seconds of each term of each part, [terms]; a part that is not there was not seen and costs nothing by itself.

    single: whether blocks were seen most of whose forwards have a single token.
    """

    parts: Mapping[str, np.ndarray]
    single: bool = True

    def seconds(self, counts: Counts) -> float:
        return float(sum(self.parts[part] @ counts.of(part) for part in counts.parts if part in self.parts))

    def knows(self, drafter: str) -> bool:
        return DRAFT + drafter in self.parts


@dataclass(frozen=True)
class Equation:
    """That the parts together took `seconds` for `counts`. scale: seconds by which its error is measured."""

    parts: tuple[str, ...]
    counts: Counts
    seconds: float
    scale: float


def fit_costs(equations: Iterable[Equation], without: Collection[tuple[str, str]] = ()) -> Costs:
    """The non-negative seconds that leave the smallest sum of squared errors, each relative to its scale.

    without: (part, term) that are to cost nothing, because the equations cannot tell them from others.
    """
    equations = list(equations)
    parts = list(dict.fromkeys(part for equation in equations for part in equation.parts))
    starts = np.cumsum([0, *(len(terms_of(part)) for part in parts)])
    matrix = np.zeros((len(equations), int(starts[-1])))
    seconds = np.zeros(len(equations))
    for row, equation in enumerate(equations):
        seconds[row] = equation.seconds / equation.scale
        for part in equation.parts:
            start = starts[parts.index(part)]
            counts = equation.counts.of(part) * [(part, term) not in without for term in terms_of(part)]
            matrix[row, start : start + len(counts)] = counts / equation.scale
    found = _solve(matrix, seconds)
    return Costs({part: found[starts[i] : starts[i + 1]] for i, part in enumerate(parts)})


def _solve(matrix: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Columns are brought to one size first: counts of tokens are a thousand times those of prefills."""
    if not matrix.size:
        return np.zeros(matrix.shape[1])
    size = np.linalg.norm(matrix, axis=0)
    size[size == 0] = 1.0
    return nnls(matrix / size, seconds)[0] / size


def summed(many: Sequence[Counts]) -> Counts:
    total = Counts()
    for counts in many:
        for name in ("steps", "wide_steps", "tokens", "context", "requests", "prefills", "prompt_tokens"):
            setattr(total, name, getattr(total, name) + getattr(counts, name))
        for drafter, row in counts.drafts.items():
            old = total.drafts.setdefault(drafter, [0.0, 0.0, 0.0])
            total.drafts[drafter] = [a + b for a, b in zip(old, row, strict=True)]
    return total
