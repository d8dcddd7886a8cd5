"""The costs of a server, from blocks that it served: what was counted is simulated, what was timed is fitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sglang_hetero_spec.bench.records import BlockRecord, RequestRecord
from sglang_hetero_spec.bench.speed_model.accept import NOBODY, Accept, accept_of, drafter_of
from sglang_hetero_spec.bench.speed_model.costs import (
    DRAFT,
    HOST,
    REST,
    TARGET,
    Costs,
    Counts,
    Equation,
    fit_costs,
)
from sglang_hetero_spec.bench.speed_model.run_folder import Block
from sglang_hetero_spec.bench.speed_model.simulate import Job, simulate

ROUNDS = 2
ENOUGH = 1.5


@dataclass(frozen=True)
class Observed:
    """A block and what it says of costs; None where requests arrive by the clock, and who shares a batch depends on
    the costs themselves."""

    block: Block
    equations: tuple[Equation, ...] | None


def observe(blocks: Sequence[Block]) -> list[Observed]:
    return [Observed(one, tuple(_equations(one, Costs({}))) if one.in_flight is not None else None) for one in blocks]


def fit_servers(observed: Sequence[Observed]) -> dict[str, Costs]:
    """Of each server that has a block with a fixed number in flight: only those say what the rest of the time costs."""
    servers = dict.fromkeys(one.block.server for one in observed if one.equations is not None)
    return {server: _fit([one for one in observed if one.block.server == server]) for server in servers}


def _fit(observed: Sequence[Observed]) -> Costs:
    """The costs that the blocks of one server agree on best, errors taken relative to each block's seconds."""
    known = [equation for one in observed for equation in one.equations or ()]
    costs = fit_costs(known, _alike(known))
    by_clock = [one.block for one in observed if one.equations is None]
    for _ in range(ROUNDS if by_clock else 0):
        more = [equation for block in by_clock for equation in _equations(block, costs)]
        costs = fit_costs(known + more, _alike(known + more))
    return costs


def _alike(equations: Sequence[Equation]) -> tuple[tuple[str, str], ...]:
    """The context is no term where all blocks have about as much for each request: then it is another word for the
    number of requests."""
    each = [
        one.counts.context / one.counts.requests for one in equations if TARGET in one.parts and one.counts.requests
    ]
    return () if each and max(each) > ENOUGH * min(each) else ((TARGET, "context"),)


def forwards(block: Block) -> float | None:
    """Verify forwards that the simulation has in it; None where arrivals by the clock make that a matter of costs."""
    if block.in_flight is None:
        return None
    jobs = [job(one, _own(one), by_clock=False) for one in block.requests]
    return simulate(jobs, block.in_flight, lambda _: 0.0).counts.steps


def job(record: RequestRecord, accept: Accept, *, by_clock: bool) -> Job:
    """The request as the model sees it, if its verify steps bring as many tokens as those of `accept` did."""
    decoded = record.completion_tokens - 1
    drafter = drafter_of(record)
    per_step = 1.0 if drafter == NOBODY else accept.tokens_per_step
    return Job(
        drafter=drafter,
        prompt_tokens=record.prompt_tokens,
        steps=max(1, round(decoded / per_step)) if decoded > 0 else 0,
        tokens_per_step=per_step,
        width=1.0 if drafter == NOBODY else accept.width,
        arrival=record.start if by_clock else None,
    )


def _equations(block: Block, costs: Costs) -> Iterator[Equation]:
    """One for each clock that the server had; where it had none, what the client saw."""
    by_clock = block.in_flight is None
    jobs = [job(one, _own(one), by_clock=by_clock) for one in block.requests]
    counts = simulate(jobs, block.in_flight, costs.seconds).counts
    record, scale = block.record, block.record.seconds
    if record.target_seconds is None:
        if not by_clock:
            yield Equation(tuple(part for part in counts.parts if part != HOST), counts, record.seconds, scale)
            yield from _first_tokens(block)
        return
    timed = record.target_seconds + (record.host_seconds or 0.0)
    yield Equation((TARGET,), counts, record.target_seconds, scale)
    if record.host_seconds is not None:
        yield Equation((HOST,), counts, record.host_seconds, scale)
    for drafter, seconds in _drafter_seconds(record, counts).items():
        timed += seconds
        yield Equation((DRAFT + drafter,), counts, seconds, scale)
    if not by_clock:
        yield Equation((REST,), counts, max(record.seconds - timed, 0.0), scale)


def _own(record: RequestRecord) -> Accept:
    own = accept_of(record)
    return own if own.steps else Accept(1, 1, 1, 0)


def _drafter_seconds(record: BlockRecord, counts: Counts) -> Mapping[str, float]:
    """By drafter. One that is in no request's record (it was replaced half-way) is left to the rest."""
    if record.drafter_seconds is not None:
        return {name: seconds for name, seconds in record.drafter_seconds.items() if name in counts.drafts}
    if len(counts.drafts) == 1 and record.draft_seconds is not None:
        return {next(iter(counts.drafts)): record.draft_seconds}
    return {}


def _first_tokens(block: Block) -> Iterator[Equation]:
    """With one request in flight the time to the first token is a prefill's: it tells prefills from steps."""
    if block.in_flight != 1 or any(request.ttft is None for request in block.requests):
        return
    work = Counts(prefills=len(block.requests), prompt_tokens=sum(one.prompt_tokens for one in block.requests))
    seconds = sum(request.ttft or 0.0 for request in block.requests)
    yield Equation((REST,), work, seconds, block.record.seconds)
