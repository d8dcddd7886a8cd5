"""measured.jsonl: what serving really gave, one run a line. Raw counts; speeds are quotients of their sums.

{"task": "sql", "arm": "hetero", "drafter": null, "run": 1, "concurrency": 4, "requests": 32,
 "completion_tokens": 4096, "verify_steps": 1311, "seconds": 9.7, "predicted_tokens_per_second": 415.0}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from sglang_hetero_spec.build.prompts import write_lines
from sglang_hetero_spec.build.report.errors import ReportError
from sglang_hetero_spec.build.report.strict import Strict, read_jsonl
from sglang_hetero_spec.pool.schema import Name

if TYPE_CHECKING:
    from sglang_hetero_spec.build.profile.serve_pool import Traffic

MEASURED_NAME = "measured.jsonl"
Arm = Literal["none", "standalone", "ngram", "hetero"]
Positive = Annotated[int, Field(ge=1)]
_AGAIN = "correct it, or measure again"


class MeasuredRun(Strict):
    """One run: `requests` requests, `concurrency` of them in flight, `seconds` of wall clock.

    task: null is the mixed workload. arm: how it was served; `drafter` is the one drafter of `standalone`, else null.
    run: numbers the runs; runs of one number were taken together, and ratios are taken within it. verify_steps: summed
    over requests, null where not counted. predicted_tokens_per_second: what the profile's model said, null if nothing.
    """

    task: Name | None
    arm: Arm
    drafter: Name | None = None
    run: Positive
    concurrency: Positive
    requests: Positive
    completion_tokens: Positive
    verify_steps: Positive | None = None
    seconds: Annotated[float, Field(gt=0)]
    predicted_tokens_per_second: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _drafter_where_one_is(self) -> MeasuredRun:
        if (self.arm == "standalone") != (self.drafter is not None):
            raise ValueError("`drafter` names the drafter of the arm `standalone`, and is null for every other arm")
        return self

    @property
    def series(self) -> str:
        """The arm as it is shown, with its drafter."""
        return self.arm if self.drafter is None else f"{self.arm} {self.drafter}"


def read_measured(path: str | Path) -> tuple[MeasuredRun, ...]:
    """The runs of measured.jsonl; ReportError in one sentence."""
    runs = read_jsonl(Path(path), MeasuredRun, _AGAIN)
    if not runs:
        raise ReportError(f"{path} has no run; measure again.")
    if len({run.concurrency for run in runs}) > 1:
        raise ReportError(f"{path} mixes runs at different concurrencies, which cannot be compared; keep one of them.")
    seen = set()
    for run in runs:
        key = run.task, run.series, run.run
        if key in seen:
            where = run.task or "the mixed workload"
            raise ReportError(f"{path} has run {run.run} of `{run.series}` on {where} twice; number the runs.")
        seen.add(key)
    return runs


def write_measured(path: str | Path, runs: Iterable[MeasuredRun]) -> None:
    """Write measured.jsonl whole or not at all."""
    write_lines(path, (run.model_dump(mode="json") for run in runs))


def runs_of(
    traffics: Iterable[Traffic],
    arm: Arm,
    drafter: str | None = None,
    predicted: Mapping[str | None, float] | None = None,
) -> list[MeasuredRun]:
    """What `measure_pool` measured as runs of one arm, a run for each pass; predicted: tokens/s by task, None mixed."""
    return [
        MeasuredRun(
            task=traffic.task,
            arm=arm,
            drafter=drafter,
            run=number,
            concurrency=traffic.concurrency,
            requests=one.counts.requests,
            completion_tokens=one.counts.completion_tokens,
            verify_steps=one.counts.verify_steps or None,
            seconds=one.seconds,
            predicted_tokens_per_second=(predicted or {}).get(traffic.task),
        )
        for traffic in traffics
        for number, one in enumerate(traffic.passes, start=1)
    ]
