"""A block of requests served step by step, by counts alone: who is in which batch, and what work that is.

What it assumes of the server, and where build/profile/mixed.py, which has the same step, says it differently:

- As there, a step drafts once for each drafter present, for all of its requests, and verifies all requests in one
  forward as wide as the widest present. (mixed.py draws the batch at random, for traffic without end; here the
  batch is what the run's own prompts in their order make of it, with its filling at the start and emptying at the end.)
- Requests that have arrived are read first, all in one prefill forward, and nothing else runs meanwhile; the first
  token is the prefill's. (mixed.py has that as seconds per token.)
- Where so many are in flight, the next one is sent when one ends. The others do one step more before it is there; where
  there are none, the server does not wait for it.
- A step brings a request as many tokens as every other step of it does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sglang_hetero_spec.bench.speed_model.accept import NOBODY
from sglang_hetero_spec.bench.speed_model.costs import Counts, summed


@dataclass(frozen=True)
class Job:
    """A request. steps: verify steps it needs; tokens_per_step: by how much its context grows in each; width: its
    tokens in a verify forward; arrival: seconds since the block's start, None where it is sent when another one
    ends."""

    drafter: str
    prompt_tokens: int
    steps: int
    tokens_per_step: float
    width: float
    arrival: float | None = None


@dataclass(frozen=True)
class Trace:
    """counts: work of all. busy: seconds from the first arrival to the last end; waits: each job's, arrival to end."""

    counts: Counts
    busy: float
    waits: tuple[float, ...]


@dataclass
class _Running:
    job: int
    left: int
    context: float
    read: bool = False


def simulate(jobs: Sequence[Job], in_flight: int | None, seconds_of: Callable[[Counts], float]) -> Trace:
    """Serve `jobs` in order, `in_flight` at a time (None: as they arrive). seconds_of: what a piece of work takes."""
    block = _Block(jobs, in_flight)
    done: list[Counts] = []
    while True:
        work = block.next_work()
        if work is None:
            break
        done.append(work)
        block.advance(work, seconds_of(work))
    first = min((start for start in block.starts if not math.isnan(start)), default=0.0)
    waits = tuple(end - start for start, end in zip(block.starts, block.ends, strict=True))
    return Trace(summed(done), block.now - first, waits)


class _Block:
    def __init__(self, jobs: Sequence[Job], in_flight: int | None) -> None:
        self._jobs, self._in_flight = jobs, in_flight
        order = sorted(range(len(jobs)), key=lambda i: jobs[i].arrival or 0.0)
        self._queue = order[::-1]
        self._running: list[_Running] = []
        self._fresh: list[_Running] = []
        # When the requests that are under way or wait were sent, and how many of them are not there yet.
        self._sent = [0.0] * min(in_flight or 0, len(jobs))
        self._under_way = 0
        self.starts, self.ends = [math.nan] * len(jobs), [math.nan] * len(jobs)
        self.now = 0.0

    def next_work(self) -> Counts | None:
        """A prefill of all that wait, or a step of all that run; None when nothing is left."""
        if not self._running and self._queue and self._in_flight is None:
            self.now = max(self.now, self._jobs[self._queue[-1]].arrival or 0.0)
        self._fresh = [self._admit() for _ in range(self._arrived())]
        if self._fresh:
            return Counts(prefills=1, prompt_tokens=sum(self._jobs[one.job].prompt_tokens for one in self._fresh))
        return self._step() if self._running else None

    def advance(self, work: Counts, seconds: float) -> None:
        self.now += seconds
        if work.prefills:
            self._running += self._fresh
        else:
            for one in self._running:
                one.left -= 1
                one.context += self._jobs[one.job].tokens_per_step
                one.read = True
        ended = [one for one in self._running if one.left <= 0]
        for one in ended:
            self.ends[one.job] = self.now
        self._sent += [self.now] * len(ended)
        self._under_way = len(ended)
        self._running = [one for one in self._running if one.left > 0]

    def _arrived(self) -> int:
        if self._in_flight is not None:
            late = self._under_way if self._running else 0
            return min(self._in_flight - len(self._running) - late, len(self._queue))
        return sum(1 for i in self._queue if (self._jobs[i].arrival or 0.0) <= self.now)

    def _admit(self) -> _Running:
        number = self._queue.pop()
        job = self._jobs[number]
        self.starts[number] = (job.arrival or 0.0) if self._in_flight is None else self._sent.pop(0)
        return _Running(number, job.steps, job.prompt_tokens + 1)

    def _step(self) -> Counts:
        jobs = [self._jobs[one.job] for one in self._running]
        drafts: dict[str, list[float]] = {}
        for job, one in zip(jobs, self._running, strict=True):
            if job.drafter != NOBODY:
                row = drafts.setdefault(job.drafter, [1.0, 0.0, 0.0])
                row[1] += 1
                row[2] += 0 if one.read else job.prompt_tokens
        tokens = len(jobs) * max(job.width for job in jobs)
        return Counts(
            steps=1,
            wide_steps=1 if tokens > 1 else 0,
            tokens=tokens,
            context=sum(one.context for one in self._running),
            requests=len(jobs),
            drafts=drafts,
        )
