"""The tasks as the page shows them: what they are, who serves them, what that brings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sglang_hetero_spec.build.assign.result import AssignedTask
from sglang_hetero_spec.build.profile.records import NONE
from sglang_hetero_spec.build.report.inputs import Inputs
from sglang_hetero_spec.build.report.sources import Task
from sglang_hetero_spec.build.report.speeds import HETERO, Served, Spread, TaskSpeeds
from sglang_hetero_spec.build.report.text import clean, excerpt, length, percent, shortened, times, whole

_TERMS, _EXAMPLES = 10, 3


@dataclass(frozen=True)
class TaskView:
    """Figures are words; an empty one is not known."""

    number: int
    id: str
    name: str
    size: str
    requests: str
    share: str
    terms: tuple[str, ...]
    examples: tuple[str, ...]
    labels: str
    drafter: str
    settings: str
    is_speculating: bool
    accept_length: str
    expected_gain: str
    measured_gain: str
    measured_spread: str


def task_views(inputs: Inputs, speeds: Sequence[TaskSpeeds]) -> tuple[TaskView, ...]:
    sizes = _sizes(inputs)
    total = sum(size for size in sizes.values() if size is not None) + num_outliers(inputs)
    by_task = {item.task: item for item in speeds}
    return tuple(
        _view(inputs, number, task, sizes[task.id], total, by_task.get(task.id))
        for number, task in enumerate(inputs.tasks)
    )


def num_outliers(inputs: Inputs) -> int:
    """Prompts without a task."""
    return sum(prompt.task is None for prompt in inputs.prompts or ())


def spread_words(spread: Spread | None) -> str:
    """1.71x to 1.86x; empty where there is one run or none."""
    if spread is None or len(spread.runs) < 2:
        return ""
    return f"{times(spread.low)} to {times(spread.high)}"


def _sizes(inputs: Inputs) -> dict[str, int | None]:
    if inputs.prompts is None:
        return {task.id: task.size for task in inputs.tasks}
    counts = Counter(prompt.task for prompt in inputs.prompts)
    return {task.id: counts[task.id] for task in inputs.tasks}


def _view(inputs: Inputs, number: int, task: Task, size: int | None, total: int, speeds: TaskSpeeds | None) -> TaskView:
    assigned = _assigned(inputs, task.id)
    hetero = speeds.of(HETERO) if speeds else None
    return TaskView(
        number=number,
        id=task.id,
        name=shortened(task.title, 80),
        size="" if size is None else whole(size),
        requests="" if task.requests in (None, size) else whole(task.requests),
        share="" if size is None or not total else percent(size / total),
        terms=tuple(shortened(term, 40) for term in task.top_terms[:_TERMS]),
        examples=tuple(excerpt(text) for text in _examples(inputs, task)),
        labels=_labels(inputs, task.id),
        drafter=assigned.drafter if assigned else "",
        settings=settings_words(assigned) if assigned else "",
        is_speculating=assigned is not None and assigned.drafter != NONE,
        accept_length=length(assigned.accept_length) if assigned else "",
        expected_gain=_expected(hetero),
        measured_gain=times(hetero.measured_gain.value) if hetero and hetero.measured_gain else "",
        measured_spread=spread_words(hetero.measured_gain) if hetero else "",
    )


def settings_words(assigned: AssignedTask) -> str:
    """4 drafts a step, or what a tree has."""
    if assigned.num_steps == 0:
        return "no drafts"
    if assigned.topk == 1:
        return f"chain of {assigned.num_steps}"
    return f"tree: {assigned.num_steps} steps, top {assigned.topk}, {assigned.num_draft_tokens} tokens"


def _expected(hetero: Served | None) -> str:
    return times(hetero.expected_gain) if hetero and hetero.expected_gain is not None else ""


def _assigned(inputs: Inputs, task: str) -> AssignedTask | None:
    tasks = inputs.assignment.tasks if inputs.assignment else ()
    return next((item for item in tasks if item.task == task), None)


def _examples(inputs: Inputs, task: Task) -> Sequence[str]:
    """Those that partition chose; else the first of the task."""
    if task.examples:
        return task.examples[:_EXAMPLES]
    mine = [prompt.text for prompt in inputs.prompts or () if prompt.task == task.id]
    return mine[:_EXAMPLES]


def _labels(inputs: Inputs, task: str) -> str:
    """The log's own labels of the task's prompts, the most frequent first; empty where the log has none."""
    counts = Counter(prompt.label for prompt in inputs.prompts or () if prompt.task == task and prompt.label)
    return ", ".join(f"{clean(shortened(label, 40))} ({whole(count)})" for label, count in counts.most_common(3))
