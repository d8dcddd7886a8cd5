"""Speedups: one row for each task, a mark for each way of serving; measured ones with the range of the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from sglang_hetero_spec.build.profile.records import NONE
from sglang_hetero_spec.build.report.speeds import Served, TaskSpeeds
from sglang_hetero_spec.build.report.svg import Element, Scale, add, canvas, mark, render, ticks, tip
from sglang_hetero_spec.build.report.text import plural, shortened, times

_ROW, _TOP, _BOTTOM = 30.0, 14.0, 46.0
_LANE = 9.0
_MIXED = "all tasks mixed"


def series_of(speeds: Sequence[TaskSpeeds]) -> dict[str, int]:
    """The ways of serving that are compared with `none`, with the number of their mark; `hetero` is number 0."""
    names = dict.fromkeys(item.series for task in speeds for item in task.served if item.series != NONE)
    ordered = sorted(names, key=lambda name: name != "hetero")
    return {name: number for number, name in enumerate(ordered)}


def speedup_chart(speeds: Sequence[TaskSpeeds], titles: Mapping[str, str], width: float) -> Markup | None:
    """`width` in pixels: labels stand left of the rows, or above them below 500. None if no speedup is known."""
    gains = [gain for task in speeds for item in task.served for gain in _gains(item) if item.series != NONE]
    if not gains:
        return None
    is_narrow = width < 500
    series = series_of(speeds)
    row = max(_ROW, _LANE * len(series) + 14) + (20 if is_narrow else 0)
    height = _TOP + row * len(speeds) + _BOTTOM
    left = 14.0 if is_narrow else 230.0
    marks = ticks(min(1.0, *gains), max(1.0, *gains), 4 if is_narrow else 7)
    scale = Scale(marks[0], marks[-1], left, width - 24)
    class_ = "narrow" if is_narrow else "wide"
    root = canvas(width, height, "Speedups over serving without speculation, by task", class_)
    _axis(root, scale, marks, height, width, left)
    for place, task in enumerate(speeds):
        top = _TOP + row * place
        name = _MIXED if task.task is None else shortened(titles[task.task], 30)
        weight = "name mixed" if task.task is None else "name"
        if is_narrow:
            add(root, "text", name, x=left, y=top + 14, class_=weight)
        else:
            add(root, "text", name, x=left - 14, y=top + row / 2 + 4, text_anchor="end", class_=weight)
        middle = top + row / 2 + (10 if is_narrow else 0)
        for item in task.served:
            if item.series != NONE:
                lane = (series[item.series] - (len(series) - 1) / 2) * (_LANE + 1)
                _served(root, scale, middle + lane, item, series[item.series], name)
    return render(root)


def _gains(item: Served) -> list[float]:
    measured = [item.measured_gain.low, item.measured_gain.high] if item.measured_gain else []
    return measured + ([item.expected_gain] if item.expected_gain is not None else [])


def _axis(root: Element, scale: Scale, marks: Sequence[float], height: float, width: float, left: float) -> None:
    bottom = height - _BOTTOM
    for value in marks:
        class_ = "reference" if value == 1 else "grid"
        add(root, "line", x1=scale(value), x2=scale(value), y1=_TOP, y2=bottom, class_=class_)
        add(root, "text", f"{value:g}\u00d7", x=scale(value), y=bottom + 17, text_anchor="middle", class_="tick")
    if 1 not in marks:
        add(root, "line", x1=scale(1), x2=scale(1), y1=_TOP, y2=bottom, class_="reference")
    words = "tokens per second, as a multiple of no speculation"
    add(root, "text", words, x=(left + width) / 2, y=height - 8, text_anchor="middle", class_="axis")


def _served(root: Element, scale: Scale, y: float, item: Served, number: int, name: str) -> None:
    if item.measured_gain is not None:
        gain = item.measured_gain
        group = add(root, "g")
        add(group, "line", x1=scale(gain.low), x2=scale(gain.high), y1=y, y2=y, class_=f"range s{number}")
        for run in gain.runs:
            add(group, "line", x1=scale(run), x2=scale(run), y1=y - 4, y2=y + 4, class_=f"run s{number}")
        mark(group, number, scale(gain.value), y, 5.5)
        spread = f"{times(gain.low)} to {times(gain.high)} over {plural(len(gain.runs), 'run')}"
        tip(group, f"{name}, {item.series}: measured {times(gain.value)} ({spread})")
    if item.expected_gain is not None:
        hollow = mark(root, number, scale(item.expected_gain), y, 5.5, "hollow")
        tip(hollow, f"{name}, {item.series}: expected {times(item.expected_gain)}")
