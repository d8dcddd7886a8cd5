"""The map of the prompts: a mark for each, the task's name where its prompts are densest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from sglang_hetero_spec.build.prompts import Prompt
from sglang_hetero_spec.build.report.svg import Element, Scale, add, canvas, mark, render, tip
from sglang_hetero_spec.build.report.text import shortened

_WIDTH, _HEIGHT, _MARGIN = 1020.0, 640.0, 34.0
_LABEL_GAP = 26.0
_CHAR_WIDTH = 8.4
_NARROW = 1.8
_OUTLIER = "outlier"


def map_chart(
    prompts: Sequence[Prompt], places: np.ndarray, numbers: Mapping[str, int], titles: Mapping[str, str]
) -> Markup:
    """places: [prompts, 2] within 0 to 1; numbers: task -> its place among the series."""
    across = Scale(0, 1, _MARGIN, _WIDTH - _MARGIN)
    up = Scale(0, 1, _HEIGHT - _MARGIN, _MARGIN)
    root = canvas(_WIDTH, _HEIGHT, f"Map of {len(prompts)} prompts, like prompts near each other", "map")
    add(root, "rect", x=1, y=1, width=_WIDTH - 2, height=_HEIGHT - 2, rx=8, class_="frame")
    for prompt, (x, y) in zip(prompts, places, strict=True):
        _dot(root, prompt, across(x), up(y), numbers, titles)
    labels = []
    for task in numbers:
        mine = np.array([place for prompt, place in zip(prompts, places, strict=True) if prompt.task == task])
        if len(mine):
            x, y = _label_place(mine)
            labels.append((up(y) - 14, across(x), task))
    _labels(root, labels, numbers, titles)
    return render(root)


def _dot(
    root: Element, prompt: Prompt, x: float, y: float, numbers: Mapping[str, int], titles: Mapping[str, str]
) -> None:
    if prompt.task is None:
        dot = add(root, "path", d=f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8", class_=_OUTLIER)
    else:
        dot = mark(root, numbers[prompt.task], round(x, 1), round(y, 1), 4.2, "dot")
    name = "outlier, no task" if prompt.task is None else titles[prompt.task]
    tip(dot, f"{name}: {shortened(prompt.text, 110)}")


def _label_place(places: np.ndarray) -> tuple[float, float]:
    """Above the half of the task's prompts that lie densest; the centre of all may lie between two islands."""
    few = places[:: max(1, len(places) // 200)]
    distances = np.linalg.norm(few[:, None, :] - few[None, :, :], axis=2)
    middle = np.median(distances, axis=1).argmin()
    near = few[distances[middle] <= np.median(distances[middle])]
    return float(near[:, 0].mean()), float(near[:, 1].max())


def _labels(
    root: Element, labels: list[tuple[float, float, str]], numbers: Mapping[str, int], titles: Mapping[str, str]
) -> None:
    """From top to bottom, each pushed below those that it would cover."""
    taken: list[tuple[float, float, float]] = []
    for y, x, task in sorted(labels):
        text = shortened(titles[task], 34)
        half = _CHAR_WIDTH * len(text) / 2 + 16
        room = _NARROW * half  # on a narrow screen letters are larger
        x, y = min(max(x, room), _WIDTH - room), max(y, 26.0)
        while clash := [
            at for left, right, at in taken if left < x + half and x - half < right and abs(at - y) < _LABEL_GAP
        ]:
            y = max(clash) + _LABEL_GAP
        taken.append((x - half, x + half, y))
        group = add(root, "g", class_="label")
        mark(group, numbers[task], x - half + 8, y - 5, 6)
        add(group, "text", text, x=x + 8, y=y, text_anchor="middle")
