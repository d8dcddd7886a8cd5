"""Which drafter a pool's profile finds best for a mix of tasks, and worst for each task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sglang_hetero_spec.build.profile.pooled import pooled
from sglang_hetero_spec.build.profile.records import ProfileRecord, Settings, read_profile
from sglang_hetero_spec.pool import DrafterSpec, Pool

PROFILE_NAME = "profile.jsonl"

# Seconds per token by (task, drafter).
Costs = Mapping[tuple[str, str], float]


def read_costs(pool: Pool) -> Costs | None:
    """From the pool's profile, of the drafters as the pool serves them; None without a profile.

    What a measurement owes to the machine is pooled over drafters first; concurrencies are summed.
    """
    path = pool.root / PROFILE_NAME
    return costs(pool, read_profile(path)) if path.is_file() else None


def costs(pool: Pool, records: Iterable[ProfileRecord]) -> Costs:
    shapes = {spec.name: Settings(spec.num_steps, spec.topk, spec.num_draft_tokens) for spec in pool.drafters}
    sums: dict[tuple[str, str], list[float]] = {}
    for record in pooled([record for record in records if shapes.get(record.drafter) == record.settings]):
        row = sums.setdefault((record.task, record.drafter), [0.0, 0.0])
        row[0] += record.seconds
        row[1] += record.completion_tokens
    return {key: seconds / tokens for key, (seconds, tokens) in sums.items()}


def best_single(pool: Pool, found: Costs, mix: Mapping[str, int]) -> str | None:
    """The drafter that SGLang's STANDALONE could have, and that serves the mix in the least time; None without any
    that was measured on all tasks of the mix. mix: requests by task; each is taken to get as many tokens."""
    return _cheapest([spec for spec in pool.drafters if fits_standalone(spec)], found, mix)


def _cheapest(drafters: Iterable[DrafterSpec], found: Costs, mix: Mapping[str, int]) -> str | None:
    totals = {
        spec.name: sum(number * found[task, spec.name] for task, number in mix.items())
        for spec in drafters
        if mix and all((task, spec.name) in found for task in mix)
    }
    return min(totals, key=totals.__getitem__, default=None)


def fits_standalone(spec: DrafterSpec) -> bool:
    return spec.kind == "standalone" and spec.vocab == "shared"


def worst(names: Iterable[str], found: Costs, task: str) -> str | None:
    """Of `names`, the drafter with which the task takes longest; None where none was measured on it."""
    known = {name: found[task, name] for name in names if (task, name) in found}
    return max(known, key=known.__getitem__, default=None)


def routable(pool: Pool) -> tuple[str, ...]:
    """The drafters that a router of this pool can choose, without those that draft nothing."""
    names = [*(task.drafter for task in pool.tasks), pool.fallback_drafter]
    return tuple(name for name in dict.fromkeys(names) if pool.drafter(name).kind != "none")
