"""The choice to make, as arrays: which drafters, with which settings, and which of them serves each task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sglang_hetero_spec.build.profile.mixed import CostTable, mixed_seconds_per_token
from sglang_hetero_spec.build.profile.model import Candidate, SpeedModel
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.pool.errors import listed


class AssignError(HeteroError):
    """Input that no assignment can be made from; `str(error)` is one sentence."""


@dataclass(frozen=True)
class Budget:
    """What the pool's drafters may take together; None: no limit. `none` takes nothing and counts for nothing."""

    max_drafters: int | None = None
    max_memory: int | None = None  # bytes


NO_LIMITS = Budget()


@dataclass(frozen=True)
class Problem:
    """T tasks, K candidates (the first is `none`), their costs, and what may be chosen together.

    A choice gives each task a candidate; of one drafter only one candidate may be in it. drafter: [K], number of the
    candidate's drafter, 0 for `none`; memory: bytes of each candidate.
    """

    tasks: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    drafter: tuple[int, ...]
    memory: tuple[int, ...]
    budget: Budget
    costs: CostTable

    @cached_property
    def apart(self) -> np.ndarray:
        """Weighted seconds per token [T, K], every task alone on the machine; inf where not measured."""
        usable = np.isfinite(self.costs.apart)
        return np.where(usable, self.costs.weights[:, None] * np.where(usable, self.costs.apart, 0.0), np.inf)

    def fits(self, chosen: Sequence[int]) -> bool:
        """Whether these candidates may be in one pool."""
        real = {candidate for candidate in chosen if candidate != 0}
        if len({self.drafter[candidate] for candidate in real}) < len(real):
            return False
        if self.budget.max_drafters is not None and len(real) > self.budget.max_drafters:
            return False
        limit = self.budget.max_memory
        return limit is None or sum(self.memory[candidate] for candidate in real) <= limit

    def best_apart(self, chosen: Sequence[int]) -> tuple[tuple[int, ...], float]:
        """Each task with the cheapest of these candidates and `none`, and the seconds per token, tasks apart."""
        columns = [0, *sorted(set(chosen) - {0})]
        places = self.costs.apart[:, columns].argmin(axis=1)
        choice = tuple(columns[place] for place in places)
        return choice, self.seconds_apart(choice)

    def seconds_apart(self, choice: Sequence[int]) -> float:
        """Seconds per token of the mix if every task ran alone; never more than `seconds_mixed`."""
        return math.fsum(self.apart[task, candidate] for task, candidate in enumerate(choice))

    def seconds_mixed(self, choice: Sequence[int]) -> float:
        """Seconds per token of the mix, all tasks in one batch."""
        return float(mixed_seconds_per_token(self.costs, np.array([choice]))[0])

    def single(self, candidate: int) -> tuple[int, ...] | None:
        """Every task served by this candidate; None where it was not measured on all of them."""
        if not np.isfinite(self.costs.apart[:, candidate]).all():
            return None
        return (candidate,) * len(self.tasks)


def build_problem(
    model: SpeedModel,
    *,
    concurrency: int | None = None,
    traffic: Mapping[str, float] | None = None,
    memory: Mapping[str, int] | None = None,
    budget: Budget = NO_LIMITS,
    fixed_width: bool = False,
) -> Problem:
    """The problem that a profile poses.

    traffic: share of the requests of each task, in any unit (default: equal); memory: bytes of each drafter,
    needed with `budget.max_memory`; concurrency: requests in flight to plan for (default: the largest measured);
    fixed_width: verify forwards always have the pool's widest width (CUDA graphs). AssignError in one sentence.
    """
    if concurrency is None:
        concurrency = model.default_concurrency()
    weights = _token_shares(model, _checked_traffic(model.tasks, traffic))
    drafters = tuple(dict.fromkeys(candidate.drafter for candidate in model.candidates))
    sizes = _checked_memory(drafters[1:], memory, budget)
    return Problem(
        tasks=model.tasks,
        candidates=model.candidates,
        drafter=tuple(drafters.index(candidate.drafter) for candidate in model.candidates),
        memory=tuple(sizes.get(candidate.drafter, 0) for candidate in model.candidates),
        budget=budget,
        costs=_cost_table(model, weights, concurrency, fixed_width),
    )


def _cost_table(model: SpeedModel, weights: np.ndarray, concurrency: int, fixed_width: bool) -> CostTable:
    shape = (len(model.tasks), len(model.candidates))
    forwards, verify, other = (np.full(shape, np.inf) for _ in range(3))
    draft = np.full((*shape, concurrency + 1), np.inf)
    for t, task in enumerate(model.tasks):
        for k, candidate in enumerate(model.candidates):
            cell = model.cell(candidate, task, concurrency)
            if cell is None:
                continue
            forwards[t, k], verify[t, k] = cell.forwards_per_token, cell.verify_seconds
            other[t, k] = cell.other_seconds
            draft[t, k] = model.draft_curve(candidate, task, concurrency)
        if np.isinf(forwards[t, 0]):
            measured = ", ".join(map(str, model.concurrencies(model.candidates[0], task)))
            raise AssignError(
                f"concurrency {concurrency} lies outside of what was profiled for `none` on task `{task}` ({measured});"
                " choose one inside, or profile it."
            )
    return CostTable(weights, forwards, verify, other, draft, fixed_width)


def _checked_traffic(tasks: Sequence[str], traffic: Mapping[str, float] | None) -> dict[str, float]:
    if traffic is None:
        return dict.fromkeys(tasks, 1.0)
    unknown, missing = [task for task in traffic if task not in tasks], [task for task in tasks if task not in traffic]
    if unknown:
        raise AssignError(f"the traffic names the task `{unknown[0]}`, which was not profiled; use {listed(tasks)}.")
    if missing:
        raise AssignError(f"the traffic leaves out {listed(missing)}; give every profiled task a weight (0 is one).")
    if not all(0 <= weight < math.inf for weight in traffic.values()) or sum(traffic.values()) <= 0:
        raise AssignError("the weights of the traffic must be numbers from 0 up, at least one above 0; correct them.")
    return dict(traffic)


def _token_shares(model: SpeedModel, traffic: Mapping[str, float]) -> np.ndarray:
    tokens = np.array([traffic[task] * model.tokens_per_request(task) for task in model.tasks])
    return tokens / tokens.sum()


def _checked_memory(drafters: Sequence[str], memory: Mapping[str, int] | None, budget: Budget) -> dict[str, int]:
    if budget.max_drafters is not None and budget.max_drafters < 0:
        raise AssignError(f"a pool of {budget.max_drafters} drafters cannot be; give a whole number from 0 up.")
    if budget.max_memory is not None:
        missing = [name for name in drafters if name not in (memory or {})]
        if missing:
            raise AssignError(f"a limit of memory needs the bytes of each drafter, {listed(missing)} too; give them.")
    return dict(memory or {})
