"""From raw answers to figures. Counts are summed before anything is divided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sglang_hetero_spec.demo.arms import HETERO, NONE, ONE_DRAFTER, STANDALONE
from sglang_hetero_spec.demo.client import Answer, Pass

DEFINITIONS = {
    "accept_length": "completion tokens / verify steps: the tokens that one forward of the target yields,"
    " its own token included",
    "accept_rate": "correct draft tokens / proposed draft tokens, without the target's own",
    "tokens_per_second of a task": "completion tokens / sum of the latencies of the task's requests, as the client"
    " sees them: the speed of one request among the mixed traffic",
    "tokens_per_second in total": "completion tokens of all requests / wall time: the speed of the server",
    "identical": "the token ids of every answer in every pass are those of the first pass without speculation",
}


@dataclass(frozen=True)
class Tally:
    """Raw counts of some requests. request_seconds: sum of their latencies."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    request_seconds: float = 0.0
    verify_steps: int = 0
    proposed: int = 0
    correct: int = 0

    @property
    def accept_length(self) -> float | None:
        return self.completion_tokens / self.verify_steps if self.verify_steps else None

    @property
    def accept_rate(self) -> float | None:
        return self.correct / self.proposed if self.proposed else None

    @property
    def request_speed(self) -> float:
        """Tokens per second of one request."""
        return self.completion_tokens / self.request_seconds if self.request_seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"accept_length": self.accept_length, "accept_rate": self.accept_rate}


def tally(answers: Iterable[Answer]) -> Tally:
    rows = list(answers)
    return Tally(
        requests=len(rows),
        prompt_tokens=sum(row.prompt_tokens for row in rows),
        completion_tokens=sum(row.completion_tokens for row in rows),
        request_seconds=sum(row.seconds for row in rows),
        verify_steps=sum(row.verify_steps for row in rows),
        proposed=sum(row.proposed for row in rows),
        correct=sum(row.correct for row in rows),
    )


@dataclass(frozen=True)
class Difference:
    """An answer that is not that of no speculation. place: of the first token that differs. gap: of the target's
    two best logits there."""

    arm: str
    concurrency: int
    prompt: int
    task: str
    place: int
    gap: float | None = None


@dataclass(frozen=True)
class Speed:
    """Tokens per second of the server: over all passes, and of the slowest and the fastest of them."""

    overall: float
    slowest: float
    fastest: float


@dataclass(frozen=True)
class Ratio:
    """Speed of one arm over another's: over all passes, and the smallest and largest of passes of one number."""

    overall: float
    smallest: float
    largest: float


class Results:
    """All passes of a run. Figures are for one concurrency; None where an arm was not measured."""

    def __init__(self, passes: Sequence[Pass], differences: Sequence[Difference] = ()) -> None:
        self.passes = tuple(passes)
        self.differences = tuple(differences)
        self.tasks = tuple(dict.fromkeys(answer.task for one in self.passes for answer in one.answers))
        self.concurrencies = tuple(dict.fromkeys(one.concurrency for one in self.passes))
        self.arms = tuple(dict.fromkeys(one.arm for one in self.passes))

    def of(self, arm: str, concurrency: int) -> list[Pass]:
        return [one for one in self.passes if one.arm == arm and one.concurrency == concurrency]

    def tally(self, arm: str, concurrency: int, task: str | None = None) -> Tally:
        answers = (answer for one in self.of(arm, concurrency) for answer in one.answers)
        return tally(answer for answer in answers if task is None or answer.task == task)

    def speed(self, arm: str, concurrency: int) -> Speed | None:
        passes = self.of(arm, concurrency)
        if not passes:
            return None
        each = [_pass_speed(one) for one in passes]
        tokens = sum(tally(one.answers).completion_tokens for one in passes)
        return Speed(tokens / sum(one.wall_seconds for one in passes), min(each), max(each))

    def ratio(self, arm: str, base: str, concurrency: int) -> Ratio | None:
        ours, theirs = self.of(arm, concurrency), self.of(base, concurrency)
        if not ours or not theirs:
            return None
        each = [_pass_speed(a) / _pass_speed(b) for a, b in zip(ours, theirs, strict=True)]
        fast, slow = self.speed(arm, concurrency), self.speed(base, concurrency)
        assert fast is not None and slow is not None
        return Ratio(fast.overall / slow.overall, min(each), max(each))

    def routes(self, concurrency: int, task: str | None = None) -> Counter[str]:
        """How many of the task's prompts each drafter got from the router, in the first pass."""
        return Counter(a.drafter for a in self._routed(concurrency, task) if a.drafter is not None)

    def confidence(self, concurrency: int, task: str | None = None) -> float | None:
        """The router's mean confidence over the prompts that it judged."""
        known = [a.confidence for a in self._routed(concurrency, task) if a.confidence is not None]
        return sum(known) / len(known) if known else None

    def _routed(self, concurrency: int, task: str | None) -> list[Answer]:
        passes = self.of(HETERO, concurrency)[:1]
        return [a for one in passes for a in one.answers if task is None or a.task == task]

    def differing(self, concurrency: int, task: str | None = None) -> list[Difference]:
        found = [d for d in self.differences if d.concurrency == concurrency]
        return [d for d in found if task is None or d.task == task]


def _pass_speed(one: Pass) -> float:
    return tally(one.answers).completion_tokens / one.wall_seconds


def find_differences(passes: Sequence[Pass]) -> list[Difference]:
    """Answers whose token ids are not those of the first pass without speculation; one entry per arm, concurrency
    and prompt."""
    reference = next(one for one in passes if one.arm == NONE)
    wanted = {answer.prompt: answer.output_ids for answer in reference.answers}
    found: dict[tuple[str, int, int], Difference] = {}
    for one in passes:
        for answer in one.answers:
            place = first_difference(wanted[answer.prompt], answer.output_ids)
            key = (one.arm, one.concurrency, answer.prompt)
            if place is not None and key not in found:
                found[key] = Difference(*key, task=answer.task, place=place)
    return list(found.values())


def first_difference(wanted: Sequence[int], got: Sequence[int]) -> int | None:
    """The first place where two lists differ (their common length where one goes on), None if they are equal."""
    for place, (a, b) in enumerate(zip(wanted, got, strict=False)):
        if a != b:
            return place
    return None if len(wanted) == len(got) else min(len(wanted), len(got))


COMPARED = ((HETERO, STANDALONE), (HETERO, NONE), (STANDALONE, NONE), (ONE_DRAFTER, STANDALONE))


def as_dict(results: Results) -> dict[str, Any]:
    """Raw counts of every pass, and what follows from them."""
    return {
        "passes": [_pass_dict(one) for one in results.passes],
        "figures": [_figures(results, concurrency) for concurrency in results.concurrencies],
        "identical": not results.differences,
        "differences": [asdict(difference) for difference in results.differences],
    }


def _pass_dict(one: Pass) -> dict[str, Any]:
    tasks = dict.fromkeys(answer.task for answer in one.answers)
    return {
        "arm": one.arm,
        "concurrency": one.concurrency,
        "wall_seconds": one.wall_seconds,
        "total": tally(one.answers).as_dict(),
        "tasks": {task: tally(a for a in one.answers if a.task == task).as_dict() for task in tasks},
    }


def _figures(results: Results, concurrency: int) -> dict[str, Any]:
    ratios = {f"{a}/{b}": results.ratio(a, b, concurrency) for a, b in COMPARED}
    speeds = {arm: results.speed(arm, concurrency) for arm in results.arms}
    return {
        "concurrency": concurrency,
        "tokens_per_second": {arm: asdict(speed) for arm, speed in speeds.items() if speed},
        "speed_ratios": {name: asdict(ratio) for name, ratio in ratios.items() if ratio},
        "tasks": {task: _task_figures(results, concurrency, task) for task in results.tasks},
    }


def _task_figures(results: Results, concurrency: int, task: str) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "routes": dict(results.routes(concurrency, task)),
        "confidence": results.confidence(concurrency, task),
        "identical": not results.differing(concurrency, task),
    }
    for arm in results.arms:
        counts = results.tally(arm, concurrency, task)
        figures[arm] = counts.as_dict() | {"tokens_per_second": counts.request_speed}
    return figures
