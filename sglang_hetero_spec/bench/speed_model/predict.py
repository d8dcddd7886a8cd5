"""What a block will take, from costs and accept rates that others gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sglang_hetero_spec.bench.records import RequestRecord
from sglang_hetero_spec.bench.speed_model.accept import NOBODY, Accept, drafter_of, missing
from sglang_hetero_spec.bench.speed_model.costs import Costs
from sglang_hetero_spec.bench.speed_model.fit import job
from sglang_hetero_spec.bench.speed_model.run_folder import Block
from sglang_hetero_spec.bench.speed_model.simulate import Job, simulate

DRAWS = 6  # of how far each request's drafts are right


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
    generator = np.random.default_rng(0)
    traces = [
        simulate([_drawn(one, table, generator, block) for one in block.requests], block.in_flight, mine.seconds)
        for _ in range(DRAWS)
    ]
    if traces[0].counts.mostly_single and not mine.single:
        return "the other blocks do not say what a forward of a single token costs."
    waits = [wait for trace in traces for wait in trace.waits]
    busy = sum(trace.busy for trace in traces) / DRAWS
    return Speed(block.tokens / busy, sum(waits) / len(waits))


def _drawn(
    record: RequestRecord, table: Mapping[tuple[str, str], Accept], generator: np.random.Generator, block: Block
) -> Job:
    """The request, as right as one of the same drafter and task that was seen."""
    by_clock, drafter = block.in_flight is None, drafter_of(record)
    accept = table.get((drafter, record.task))
    if drafter == NOBODY or accept is None:
        return job(record, 1.0, 1.0, by_clock=by_clock)
    return job(record, accept.drawn(generator), accept.width, by_clock=by_clock)


def _knows(costs: Costs, drafter: str) -> bool:
    return drafter == NOBODY or costs.knows(drafter)
