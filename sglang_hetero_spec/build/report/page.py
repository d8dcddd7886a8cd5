"""From the inputs to the page: every figure is computed here, the template only sets them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sglang_hetero_spec import __version__
from sglang_hetero_spec.build.profile.records import NONE, ProfileError
from sglang_hetero_spec.build.report import text
from sglang_hetero_spec.build.report.chart_curves import learning_charts, threshold_chart
from sglang_hetero_spec.build.report.chart_map import map_chart
from sglang_hetero_spec.build.report.chart_speedups import series_of, speedup_chart
from sglang_hetero_spec.build.report.inputs import Inputs
from sglang_hetero_spec.build.report.matrix import Dismissed, Matrix, Profiled
from sglang_hetero_spec.build.report.prompt_map import coordinates, sample
from sglang_hetero_spec.build.report.sources import Learned
from sglang_hetero_spec.build.report.speeds import HETERO, Served, TaskSpeeds, task_speeds
from sglang_hetero_spec.build.report.svg import add, canvas, mark, render
from sglang_hetero_spec.build.report.view_exits import exits_views
from sglang_hetero_spec.build.report.view_rejected import rejected_views
from sglang_hetero_spec.build.report.view_router import confusion_view
from sglang_hetero_spec.build.report.view_tasks import num_outliers, spread_words, task_views

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_RECORDS = 2000


def render_page(inputs: Inputs, say: Callable[[str], None] = lambda words: None) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        whole=text.whole, times=text.times, speed=text.speed, accept_length=text.length, percent=text.percent,
        signed_percent=text.signed_percent, size=text.size, clean=text.clean, plural=text.plural,
        shortened=text.shortened,
    )  # fmt: skip
    environment.globals.update(swatch=swatch, spread_words=spread_words)
    return environment.get_template("report.html.jinja").render(_page(inputs, say))


def swatch(number: int, class_: str = "") -> Markup:
    """The mark of a series, for a legend."""
    root = canvas(16, 16, "")
    root.attrib.update({"class": "swatch", "aria-hidden": "true", "style": ""})
    mark(root, number, 8, 8, 6, class_)
    return render(root)


def cross() -> Markup:
    """The mark of an outlier, for a legend."""
    root = canvas(16, 16, "")
    root.attrib.update({"class": "swatch", "aria-hidden": "true", "style": ""})
    add(root, "path", d="M4 4l8 8m0 -8l-8 8", class_="outlier")
    return render(root)


def _page(inputs: Inputs, say: Callable[[str], None]) -> dict[str, Any]:
    speeds = task_speeds(inputs)
    matrix, dismissed, matrix_note = _profiled(inputs)
    titles = {task.id: task.title for task in inputs.tasks}
    learned = _in_task_order(inputs)
    return {
        "inputs": inputs,
        "version": __version__,
        "summary": _summary(inputs, speeds),
        "tasks": task_views(inputs, speeds),
        "titles": titles,
        "map": _map(inputs, titles, say),
        "matrix": matrix,
        "matrix_note": matrix_note,
        "exits": exits_views(matrix),
        "heat": _heat(matrix),
        "records": (inputs.records or ())[:_MOST_RECORDS],
        "learned": learned,
        "curves": learning_charts(learned),
        "confusion": inputs.threshold and confusion_view(inputs, inputs.threshold),
        "threshold_chart": inputs.threshold and threshold_chart(inputs.threshold),
        "speeds": speeds,
        "series": series_of(speeds),
        "speedup_charts": [chart for width in (860, 360) if (chart := speedup_chart(speeds, titles, width))],
        "rejected": rejected_views(inputs, dismissed),
        "versions": _versions(inputs),
        "NONE": NONE,
    }


@dataclass(frozen=True)
class _Summary:
    """The figures of the first lines; None: not known."""

    num_tasks: int
    num_prompts: int | None
    num_outliers: int
    drafters: tuple[str, ...]
    tasks_without: tuple[str, ...]
    hetero: Served | None
    single: Served | None


def _summary(inputs: Inputs, speeds: tuple[TaskSpeeds, ...]) -> _Summary:
    assignment = inputs.assignment
    mixed = next((item for item in speeds if item.task is None), None)
    used = {task.drafter for task in assignment.tasks} if assignment else set()
    single = f"standalone {assignment.best_single.drafter}" if assignment else ""
    sizes = [task.size for task in inputs.tasks]
    known = sum(size for size in sizes if size is not None) if None not in sizes else None
    return _Summary(
        num_tasks=len(inputs.tasks),
        num_prompts=len(inputs.prompts) if inputs.prompts is not None else known,
        num_outliers=num_outliers(inputs),
        drafters=tuple(sorted(used - {NONE})),
        tasks_without=tuple(inputs.title(t.task) for t in assignment.tasks if t.drafter == NONE) if assignment else (),
        hetero=mixed.of(HETERO) if mixed else None,
        single=mixed.of(single) if mixed else None,
    )


def _map(inputs: Inputs, titles: dict[str, str], say: Callable[[str], None]) -> dict[str, Any] | None:
    if not inputs.prompts:
        return None
    shown = sample(inputs.prompts)
    say(f"Placing {text.plural(len(shown), 'prompt')} on the map, about {max(1, round(len(shown) / 150))} s.")
    places = coordinates([prompt.text for prompt in shown])
    numbers = {task.id: number for number, task in enumerate(inputs.tasks)}
    return {"chart": map_chart(shown, places, numbers, titles), "num_shown": len(shown), "cross": cross()}


def _profiled(inputs: Inputs) -> tuple[Matrix | None, tuple[Dismissed, ...] | None, str]:
    if inputs.records is None:
        return None, None, "Missing: the folder has no profile.jsonl (`hetero-spec profile` makes it)."
    try:
        profiled = Profiled(inputs.records, inputs.assignment, [task.id for task in inputs.tasks])
        return profiled.matrix(), profiled.dismissed(), ""
    except ProfileError as error:
        return None, None, f"Missing: {error}"


def _heat(matrix: Matrix | None) -> Callable[[float], str]:
    """An accept length as a share of the way from the least to the most shown."""
    found = [cell.accept_length for row in matrix.rows for cell in row.cells if cell] if matrix else []
    low, high = min(found, default=1.0), max(found, default=1.0)
    return lambda value: f"{(value - low) / (high - low):.3f}" if high > low else "0.5"


def _in_task_order(inputs: Inputs) -> tuple[Learned, ...]:
    """The drafters of the tasks, then the others by name."""
    order = {task.id: place for place, task in enumerate(inputs.tasks)}

    def place(learned: Learned) -> tuple[int, str]:
        task = learned.made.task if learned.made else learned.name
        return order.get(task or "", len(order)), learned.name

    return tuple(sorted(inputs.learned, key=place))


def _versions(inputs: Inputs) -> dict[str, str]:
    """As noted in versions.json, and by the alignments where they agree."""
    found = dict(inputs.versions)
    for learned in inputs.learned:
        for name, version in (learned.made.versions if learned.made else {}).items():
            if version not in found.setdefault(name, version).split(", "):
                found[name] += f", {version}"
    return dict(sorted(found.items()))
