"""The smaller files that a report reads: tasks.json, align.json with curve.jsonl, threshold.json."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field

from sglang_hetero_spec.build.report.errors import ReportError
from sglang_hetero_spec.build.report.strict import Known, Strict, read_json, read_jsonl
from sglang_hetero_spec.pool.schema import Name

Count = Annotated[int, Field(ge=0)]
CURVE, ALIGN = "curve.jsonl", "align.json"


class Task(Known):
    """One task of partition's tasks.json."""

    id: Name
    name: str | None = None
    size: Count | None = None
    requests: Count | None = None
    top_terms: tuple[str, ...] = Field((), validation_alias=AliasChoices("top_terms", "terms"))
    examples: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return self.name or self.id


class _TasksObject(Known):
    tasks: tuple[Task, ...]


def read_partition(path: Path) -> PartitionSummary:
    """partition.json: what was left out, and how the number of tasks was chosen."""
    found: PartitionSummary = read_json(path, PartitionSummary, "run `hetero-spec partition` again")
    return found


def read_tasks(path: Path) -> tuple[Task, ...]:
    """The tasks of a tasks.json: an array of them, or an object that has one under `tasks`."""
    found = read_json(path, _TasksObject | tuple[Task, ...], "run `hetero-spec partition` again")
    tasks: tuple[Task, ...] = found.tasks if isinstance(found, _TasksObject) else found
    if not tasks:
        raise ReportError(f"{path} has no task; run `hetero-spec partition` again.")
    if len({task.id for task in tasks}) < len(tasks):
        raise ReportError(f"{path} has a task id twice; run `hetero-spec partition` again.")
    return tasks


class Score(Known):
    """How good a number of tasks was, of those that were tried."""

    n_tasks: Count
    view_stability: float
    sample_stability: float
    silhouette: float


class PartitionSummary(Known):
    """What the report shows of partition.json."""

    exact_duplicates: Count = 0
    near_duplicates: Count = 0
    adjusted_rand_index: float | None = None
    scores: tuple[Score, ...] = ()


class Counts(Known):
    """Of held-out answers, as alignment counts them."""

    requests: Count
    verify_steps: Count
    proposed_drafts: Count
    correct_by_position: tuple[Count, ...]
    completion_tokens: Count

    @property
    def accept_length(self) -> float:
        return self.completion_tokens / max(1, self.verify_steps)

    @property
    def accept_rate(self) -> float:
        return sum(self.correct_by_position) / max(1, self.proposed_drafts)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Point(Strict):
    """One line of curve.jsonl."""

    step: Count
    tokens: Count
    loss: Annotated[float | None, BeforeValidator(_finite)]
    seconds: float
    counts: Counts


class Change(Known):
    before: Counts
    after: Counts


class Made(Known):
    """What the report shows of align.json."""

    task: Name | None = None
    kind: str | None = None
    num_params: Count | None = None
    counted_in: str | None = None
    weights_sha256: str | None = None
    start: dict[str, Any] = Field(default_factory=dict)
    used: dict[str, Any] = Field(default_factory=dict)
    answers: dict[str, int] = Field(default_factory=dict)
    trained: dict[str, Any] = Field(default_factory=dict)
    heldout: dict[str, Change] = Field(default_factory=dict)
    probes: tuple[dict[str, Any], ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)


class Learned(Known):
    """One drafter's folder: its name, its learning curve, and how it was made (None while that goes on)."""

    name: str
    curve: tuple[Point, ...]
    made: Made | None

    @property
    def best(self) -> Point | None:
        """The first point of highest accept rate: what was kept."""
        return max(self.curve, key=lambda point: (point.counts.accept_rate, -point.step), default=None)


def read_learned(folder: Path) -> Learned:
    """What alignment left in a drafter's folder."""
    again = "delete the drafter's folder and run `hetero-spec align` again"
    curve, made = folder / CURVE, folder / ALIGN
    return Learned(
        name=folder.name,
        curve=read_jsonl(curve, Point, again) if curve.is_file() else (),
        made=read_json(made, Made, again) if made.is_file() else None,
    )


class ThresholdPoint(Known):
    min_confidence: float
    routed_share: float
    wrong_share: float
    tokens_per_second: float


class Confused(Known):
    task: Name
    predicted: Name
    num_prompts: Count


class Threshold(Known):
    """threshold.json of `fit-router`."""

    min_confidence: float
    plateau: tuple[float, float]
    chosen_tokens_per_second: float
    oracle_tokens_per_second: float
    always_routed_tokens_per_second: float
    fallback_tokens_per_second: float
    curve: tuple[ThresholdPoint, ...]
    confusion: tuple[Confused, ...]
    second_below: float | None = None
    tokens_per_second: float | None = None
    alone_tokens_per_second: float | None = None


def read_threshold(path: Path) -> Threshold:
    found: Threshold = read_json(path, Threshold, "run `hetero-spec fit-router` again")
    return found
