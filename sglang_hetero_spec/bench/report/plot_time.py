"""Plots of time: latencies as distributions, and what a step consists of."""

from __future__ import annotations

from typing import Any

import numpy as np

from sglang_hetero_spec.bench.report.style import PARTS, Plot, Style, as_svg, drawing, label, legend, panels
from sglang_hetero_spec.bench.results import words
from sglang_hetero_spec.bench.results.columns import columns
from sglang_hetero_spec.bench.results.latency import Times, gap_times, request_times
from sglang_hetero_spec.bench.results.run_files import Run

_KINDS = {"ttft": "time to first token", "inter_token": "inter-token latency", "latency": "latency"}
_MOST_POINTS = 400
_MOST_TICKS = 6


def distributions(run: Run, found: dict[str, Any], shown: dict[str, Style]) -> Plot | None:
    """Cumulative shares, one row of panels a setting."""
    cells = {key: times for key in _cells(run) if (times := _times(run, *key))}
    settings = [name for name in found["settings"] if any(setting == name for _, setting in cells)]
    kinds = [kind for kind in _KINDS if any(kind in times for times in cells.values())]
    if not settings:
        return None
    with drawing():
        figure, axes = panels(len(kinds) * len(settings), 2.5, across=len(kinds), sharey=True)
        for place, axis in enumerate(axes):
            setting, kind = settings[place // len(kinds)], kinds[place % len(kinds)]
            scale, unit = (1, "s") if kind == "latency" else (1000, "ms")
            axis.set_xscale("log")
            for arm in shown:
                _curve(axis, cells.get((arm, setting), {}).get(kind), scale, shown[arm])
            _log_ticks(axis)
            axis.set(xlabel=f"{_KINDS[kind]}, {unit}", ylim=(0, 1.01))
            axis.set_ylabel("share of tokens" if kind == "inter_token" else "share of requests")
            axis.set_title(words.setting_title(setting) if place % len(kinds) == 0 else "")
        legend(figure, shown)
        return Plot(
            "latencies",
            "Latencies",
            "Share that took at most so long. Between tokens: time between two chunks / tokens of the later one, each"
            " token counted once. Logarithmic axes.",
            "Cumulative distributions of latencies, by arm and setting",
            as_svg(figure),
        )


def _cells(run: Run) -> list[tuple[str, str]]:
    return list(dict.fromkeys((one.arm, one.setting) for one in run.requests))


def _times(run: Run, arm: str, setting: str) -> dict[str, Times]:
    """Of the kinds that are known of every request."""
    rows = columns(one for one in run.requests if (one.arm, one.setting) == (arm, setting))
    found = request_times(rows) | gap_times(rows)
    return {
        kind: found[kind] for kind in _KINDS if len(found[kind].seconds) and not np.isnan(found[kind].seconds).any()
    }


def _curve(axis: Any, times: Times | None, scale: float, style: Style) -> None:
    if times is None:
        return
    order = np.argsort(times.seconds, kind="stable")
    seconds, shares = times.seconds[order], np.cumsum(times.weights[order])
    shares = shares / shares[-1]
    if len(seconds) > _MOST_POINTS:
        kept = np.unique(np.searchsorted(shares, np.linspace(0, 1, _MOST_POINTS)).clip(0, len(shares) - 1))
        seconds, shares = seconds[kept], shares[kept]
    positive = seconds > 0
    axis.step(seconds[positive] * scale, shares[positive], where="post", color=style.color, linewidth=1.3)
    middle = np.searchsorted(shares, 0.5)
    if positive[middle]:
        axis.plot(seconds[middle] * scale, shares[middle], color=style.color, marker=style.marker, markersize=5)


def _log_ticks(axis: Any) -> None:
    """Plain numbers, as many as there is room for; matplotlib's own powers need its formulas, which are off for users'
    texts."""
    from matplotlib.ticker import NullLocator

    low, high = axis.get_xlim()
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    ticks = np.empty(0)
    for parts in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1,)):
        ticks = np.outer(powers, parts).flatten()
        ticks = ticks[(low <= ticks) & (ticks <= high)]
        if len(ticks) <= _MOST_TICKS:
            break
    ticks = ticks[:: 1 + len(ticks) // (_MOST_TICKS + 1)]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.xaxis.set_minor_locator(NullLocator())


def shares(found: dict[str, Any], shown: dict[str, Style]) -> Plot | None:
    """Stacked bars of the parts of a step."""
    settings = [
        name
        for name, item in found["settings"].items()
        if any(arm["all"]["draft_share"]["value"] is not None for arm in item["arms"].values())
    ]
    if not settings:
        return None
    with drawing():
        figure, axes = panels(len(settings), 0.4 * len(shown) / 2 + 1.5)
        for axis, setting in zip(axes, settings, strict=True):
            cells = found["settings"][setting]["arms"]
            arms = [arm for arm in shown if arm in cells and cells[arm]["all"]["draft_share"]["value"] is not None]
            for place, arm in enumerate(arms):
                _stack(axis, place, cells[arm]["all"])
            axis.set_yticks(range(len(arms)), [label(arm) for arm in arms])
            axis.invert_yaxis()
            axis.set(title=words.setting_title(setting), xlabel="share of the time of verify steps, %", xlim=(0, 122))
            axis.set_xticks(range(0, 101, 20))
            axis.grid(axis="y", visible=False)
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles[:3], names[:3], loc="outside upper center", ncols=3)
        return Plot(
            "shares",
            "Where the time of a step goes",
            "Drafting, the target's forward, and the host's rest of the step (splitting, merging, masks, bookkeeping,"
            " accepting, committing). Only arms whose server counts them.",
            "Shares of drafting, the target's forward and the host in a step",
            as_svg(figure),
        )


def _stack(axis: Any, place: int, cell: dict[str, Any]) -> None:
    left = 0.0
    for part, (color, hatch) in PARTS.items():
        value = 100 * cell[f"{part}_share"]["value"]
        axis.barh(
            place, value, left=left, color=color, hatch=hatch, edgecolor="white", height=0.66,
            label=part if place == 0 else None,
        )  # fmt: skip
        if value >= 9:
            box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
            axis.text(left + value / 2, place, f"{value:.0f}%", ha="center", va="center", fontsize=8.5, bbox=box)
        left += value
    host = 100 * cell["host_share"]["value"]
    axis.annotate(f"host {host:.1f}%", (100, place), (4, 0), textcoords="offset points", va="center", fontsize=8.5,
                  annotation_clip=False)  # fmt: skip
