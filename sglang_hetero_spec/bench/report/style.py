"""How all plots look: one colour and one marker for each arm, in every plot; told apart without colours too."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sglang_hetero_spec.build.report.text import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, but for the grey; then some of Paul Tol's muted ones.
_KNOWN = {
    "none": ("#6b6f76", "o"),
    "standalone": ("#56b4e9", "s"),
    "standalone-best": ("#0072b2", "D"),
    "ngram": ("#e69f00", "^"),
    "hetero": ("#d55e00", "P"),
    "hetero-oracle": ("#cc79a7", "v"),
    "hetero-random": ("#009e73", "X"),
    "hetero-worst": ("#000000", "<"),
}
_OTHERS = (("#882255", "h"), ("#44aa99", ">"), ("#999933", "p"), ("#332288", "*"), ("#aa4499", "d"), ("#117733", "8"))
# Parts of a step: a light, a middle and a dark one, hatched.
PARTS = {"draft": ("#f0c987", ""), "target": ("#5b8db8", "//"), "host": ("#7a1f3d", "..")}
WIDTH = 9.2  # inches; the page shows them at most at its own width
_RC = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sglang_hetero_spec",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "sans-serif"],
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9a9a94",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e2dc",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "hatch.linewidth": 0.6,
}


@dataclass(frozen=True)
class Style:
    color: str
    marker: str


@dataclass(frozen=True)
class Plot:
    """title and caption: for people; svg: the picture; alt: what it shows, for who cannot see it."""

    name: str
    title: str
    caption: str
    alt: str
    svg: bytes

    @property
    def data_url(self) -> str:
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode("ascii")


def styles(arms: Sequence[str]) -> dict[str, Style]:
    """Of arms that are not known, in their order."""
    others = [arm for arm in arms if arm not in _KNOWN]
    found = {arm: Style(*_OTHERS[place % len(_OTHERS)]) for place, arm in enumerate(others)}
    return {arm: Style(*_KNOWN[arm]) if arm in _KNOWN else found[arm] for arm in arms}


@contextmanager
def drawing() -> Iterator[None]:
    """The house's settings; letters that matplotlib's own font lacks are drawn by the browser's."""
    from matplotlib import rc_context

    with rc_context(_RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def panels(number: int, height: float, across: int = 2, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure with `number` axes, `across` in a row, each of `height` inches."""
    from matplotlib.figure import Figure

    across = min(across, number)
    rows = -(-number // across)
    figure = Figure(figsize=(WIDTH, max(2.2, height) * rows), layout="constrained")
    axes = figure.subplots(rows, across, squeeze=False, **options).flatten().tolist()
    for spare in axes[number:]:
        spare.set_visible(False)
    return figure, axes[:number]


def as_svg(figure: Figure) -> bytes:
    """The same figure gives the same bytes."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def legend(figure: Figure, shown: dict[str, Style], most: int = 4) -> None:
    """Above all panels: marker and colour of each arm."""
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], color=style.color, marker=style.marker, linestyle="-", markersize=6, label=label(name))
        for name, style in shown.items()
    ]
    figure.legend(handles=marks, loc="outside upper center", ncols=min(most, len(marks)))


def label(text: str, most: int = 30) -> str:
    return shortened(text, most)


def errors(item: dict[str, Any]) -> list[list[float]] | None:
    """matplotlib's xerr or yerr of one estimate; None without an interval."""
    if item["value"] is None or item["low"] is None:
        return None
    return [[max(0.0, item["value"] - item["low"])], [max(0.0, item["high"] - item["value"])]]
