"""The router's confusion matrix, in the order of the tasks."""

from __future__ import annotations

from dataclasses import dataclass

from sglang_hetero_spec.build.report.inputs import Inputs
from sglang_hetero_spec.build.report.sources import Threshold
from sglang_hetero_spec.build.report.text import percent, plural, whole


@dataclass(frozen=True)
class ConfusionCell:
    """count: prompts; share: of the task's prompts, 0 to 1; tip: both in words."""

    count: str
    share: float
    is_right: bool
    tip: str


@dataclass(frozen=True)
class ConfusionView:
    """rows[i] are the prompts of task i by what was predicted."""

    tasks: tuple[str, ...]
    rows: tuple[tuple[ConfusionCell, ...], ...]
    recalls: tuple[str, ...]
    accuracy: str
    num_right: str
    num_prompts: str


def confusion_view(inputs: Inputs, threshold: Threshold) -> ConfusionView | None:
    """None where no prompt was judged."""
    counts = {(item.task, item.predicted): item.num_prompts for item in threshold.confusion}
    named = {name for pair in counts for name in pair}
    tasks = [task.id for task in inputs.tasks if task.id in named]
    total = sum(counts.values())
    if not total:
        return None
    right = sum(counts.get((task, task), 0) for task in tasks)
    rows, recalls = [], []
    for task in tasks:
        mine = sum(counts.get((task, other), 0) for other in tasks)
        rows.append(tuple(_cell(inputs, counts.get((task, other), 0), mine, task, other) for other in tasks))
        recalls.append(percent(counts.get((task, task), 0) / mine) if mine else "")
    titles = tuple(inputs.title(task) for task in tasks)
    return ConfusionView(titles, tuple(rows), tuple(recalls), percent(right / total), whole(right), whole(total))


def _cell(inputs: Inputs, count: int, mine: int, task: str, other: str) -> ConfusionCell:
    tip = f"{plural(count, 'prompt')} of {inputs.title(task)} routed as {inputs.title(other)}"
    return ConfusionCell(whole(count), count / mine if mine else 0.0, task == other, tip)
