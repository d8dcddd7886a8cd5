"""Small SVG: elements that escape by construction, ticks, and a chart's frame. No scripts, no links."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup

from sglang_hetero_spec.build.report.text import clean

Element = ElementTree.Element
MARKS = ("circle", "square", "triangle", "diamond", "cross", "tri-down")
NUM_COLOURS = 8


def canvas(width: float, height: float, label: str, class_: str = "") -> Element:
    """An empty picture; `label` is what a screen reader says."""
    return Element(
        "svg",
        {
            "viewBox": f"0 0 {_number(width)} {_number(height)}",
            "role": "img",
            "aria-label": clean(label),
            "class": f"chart {class_}".strip(),
            "style": f"max-width:{_number(width)}px",
        },
    )


def add(parent: Element, name: str, text: str | None = None, **attributes: object) -> Element:
    """A child; `class_` is class, `text_anchor` is text-anchor."""
    given = {key.rstrip("_").replace("_", "-"): _attribute(value) for key, value in attributes.items()}
    child = ElementTree.SubElement(parent, name, given)
    child.text = None if text is None else clean(text)
    return child


def tip(element: Element, text: str) -> None:
    """What the pointer shows."""
    add(element, "title", text)


def render(root: Element) -> Markup:
    """The picture as markup for the page."""
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def mark(parent: Element, number: int, x: float, y: float, radius: float, class_: str = "") -> Element:
    """The mark of series `number`: its own pair of colour and shape up to 24 series."""
    classes = f"c{number % NUM_COLOURS} {class_}".strip()
    return add(parent, "path", d=_shape(MARKS[number % len(MARKS)], x, y, radius), class_=classes)


def _shape(name: str, x: float, y: float, r: float) -> str:
    def path(*points: tuple[float, float]) -> str:
        corners = (f"{_number(x + r * dx)} {_number(y + r * dy)}" for dx, dy in points)
        return "M" + "L".join(corners) + "Z"

    if name == "circle":
        half = f"a{_number(r)} {_number(r)} 0 1 0 "
        return f"M{_number(x - r)} {_number(y)}{half}{_number(2 * r)} 0{half}-{_number(2 * r)} 0Z"
    if name == "square":
        return path((-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88))
    if name == "triangle":
        return path((0, -1.2), (1.1, 0.8), (-1.1, 0.8))
    if name == "tri-down":
        return path((0, 1.2), (1.1, -0.8), (-1.1, -0.8))
    if name == "diamond":
        return path((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0))
    w = 0.42
    corners = ((-w, -1.1), (w, -1.1), (w, -w), (1.1, -w), (1.1, w), (w, w))
    return path(*corners, *((-dx, -dy) for dx, dy in corners))


@dataclass(frozen=True)
class Scale:
    """Data from `low` to `high` along pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        return self.start + (self.end - self.start) * ((value - self.low) / span if span else 0.5)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers that enclose low to high, about so many."""
    if not high > low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 10) for place in range(first, last + 1)]


def points(pairs: Sequence[tuple[float, float]]) -> str:
    """For polyline."""
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in pairs)


def _attribute(value: object) -> str:
    return _number(value) if isinstance(value, float | int) and not isinstance(value, bool) else clean(str(value))


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"
