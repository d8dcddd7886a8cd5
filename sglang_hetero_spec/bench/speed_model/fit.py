"""The costs of a server, from blocks that it served: what was counted is simulated, what was timed is fitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sglang_hetero_spec.bench.records import BlockRecord, RequestRecord
from sglang_hetero_spec.bench.speed_model.accept import accept_of, drafter_of
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
    costs = _solve(known)
    by_clock = [one.block for one in observed if one.equations is None]
    for _ in range(ROUNDS if by_clock else 0):
        more = [equation for block in by_clock for equation in _equations(block, costs)]
        costs = _solve(known + more)
    return costs


def _solve(equations: Sequence[Equation]) -> Costs:
    """Terms that these equations cannot tell from others are left out: the context, where all blocks have about as much
    of it for each request; that a forward has more than one token, where nearly all have, or nearly none."""
    counts = [one.counts for one in equations if TARGET in one.parts and one.counts.requests]
    each = [one.context / one.requests for one in counts]
    without = [] if each and max(each) > ENOUGH * min(each) else [(TARGET, "context")]
    single = {one.mostly_single for one in counts}
    if len(single) < 2:
        without.append((TARGET, "wide_steps"))
    return replace(fit_costs(equations, without), single=True in single)


def forwards(block: Block) -> float | None:
    """Verify forwards that the simulation has in it; None where arrivals by the clock make that a matter of costs."""
    if block.in_flight is None:
        return None
    jobs = [own_job(one, by_clock=False) for one in block.requests]
    return simulate(jobs, block.in_flight, lambda _: 0.0).counts.steps


def job(record: RequestRecord, tokens_per_step: float, width: float, *, by_clock: bool) -> Job:
    """The request as the model sees it, if each of its verify steps brings so many tokens and takes so many."""
    decoded = record.completion_tokens - 1
    steps = max(1, round(decoded / tokens_per_step)) if decoded > 0 else 0
    arrival = record.start if by_clock else None
    return Job(drafter_of(record), record.prompt_tokens, steps, tokens_per_step, width, arrival)


def own_job(record: RequestRecord, *, by_clock: bool) -> Job:
    """With the steps that it did take."""
    own = accept_of(record)
    return job(record, *((own.tokens_per_step, own.width) if own.steps else (1.0, 1.0)), by_clock=by_clock)


def _equations(block: Block, costs: Costs) -> Iterator[Equation]:
    """One for each clock that the server had; where it had none, what the client saw."""
    by_clock = block.in_flight is None
    jobs = [own_job(one, by_clock=by_clock) for one in block.requests]
    counts = simulate(jobs, block.in_flight, costs.seconds).counts
    timed = _timed(block.record, counts)
    for part, seconds in timed.items():
        yield Equation((part,), counts, seconds, block.record.seconds)
    if by_clock:
        return  # the rest has waiting in it
    # Host work that no clock tells from the target's is told by the same counts as the scheduler's.
    others = tuple(part for part in counts.parts if part not in timed and part != HOST)
    left = max(block.record.seconds - sum(timed.values()), 0.0)
    yield Equation(others, counts, left, block.record.seconds)
    if TARGET not in timed:
        yield from _first_tokens(block)


def _timed(record: BlockRecord, counts: Counts) -> dict[str, float]:
    """Seconds of the parts that have a clock of their own."""
    clocks = {TARGET: record.target_seconds, HOST: record.host_seconds}
    found = {part: seconds for part, seconds in clocks.items() if seconds is not None}
    return found | {DRAFT + name: seconds for name, seconds in _drafter_seconds(record, counts).items()}


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
