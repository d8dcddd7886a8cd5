"""What a block will take, from costs and accept rates that others gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sglang_hetero_spec.bench.speed_model.accept import NOBODY, Accept, drafter_of, missing
from sglang_hetero_spec.bench.speed_model.costs import Costs
from sglang_hetero_spec.bench.speed_model.fit import job
from sglang_hetero_spec.bench.speed_model.run_folder import Block
from sglang_hetero_spec.bench.speed_model.simulate import simulate

_ALONE = Accept(1, 1, 1, 0)


@dataclass(frozen=True)
class Speed:
    """tokens_per_second: completion tokens of the block over its seconds. request_seconds: mean, sending to end."""

    tokens_per_second: float
    request_seconds: float


def measured(block: Block) -> Speed:
    waits = [request.seconds for request in block.requests]
    return Speed(block.tokens / block.record.seconds, sum(waits) / len(waits))


def predict(block: Block, costs: Mapping[str, Costs], table: Mapping[tuple[str, str], Accept]) -> Speed | str:
    """Of the block only what was asked is read: prompts, their tasks and lengths, who drafts, when requests arrive,
    and how long the target's answers are. Where costs or table lack something, a sentence that says what."""
    mine = costs.get(block.server)
    if mine is None:
        return f"nothing was fitted of the server of arm `{block.arm}`."
    lacking = missing(table, block.requests)
    if lacking is not None:
        return f"the other blocks have no requests of {lacking}."
    unknown = sorted(name for name in {drafter_of(one) for one in block.requests} if not _knows(mine, name))
    if unknown:
        return f"the other blocks do not say what drafter `{unknown[0]}` costs."
    by_clock = block.in_flight is None
    jobs = [job(one, table.get((drafter_of(one), one.task), _ALONE), by_clock=by_clock) for one in block.requests]
    trace = simulate(jobs, block.in_flight, mine.seconds)
    return Speed(block.tokens / trace.busy, sum(trace.waits) / len(trace.waits))


def _knows(costs: Costs, drafter: str) -> bool:
    return drafter == NOBODY or costs.knows(drafter)
