"""Plots of what the target accepts: by task, and by position in the draft."""

from __future__ import annotations

from typing import Any

from sglang_hetero_spec.bench.report.style import Plot, Style, as_svg, drawing, errors, label, legend, panels, styles
from sglang_hetero_spec.bench.results import words

FEW = 100  # steps; a rate of fewer is drawn hollow


def accept_lengths(found: dict[str, Any], shown: dict[str, Style], setting: str) -> Plot | None:
    """Dots with whiskers, task by task."""
    cells = found["settings"][setting]["arms"]
    arms = [arm for arm in shown if arm in cells and cells[arm]["all"]["accept_length"]["value"] is not None]
    if not arms:
        return None
    rows = [*found["tasks"], None]
    with drawing():
        figure, (axis,) = panels(1, 0.12 * len(rows) * (len(arms) + 2) + 1.3)
        for place, arm in enumerate(arms):
            for row, task in enumerate(rows):
                group = cells[arm]["all"] if task is None else cells[arm]["tasks"].get(task)
                item = group["accept_length"] if group else {"value": None}
                if item["value"] is not None:
                    at = row + 0.76 * (place - (len(arms) - 1) / 2) / len(arms)
                    style = {"color": shown[arm].color, "marker": shown[arm].marker}
                    axis.errorbar(item["value"], at, xerr=errors(item), markersize=5.5, capsize=2, **style)
        for line in range(1, len(rows)):
            axis.axhline(line - 0.5, color="#c9c6be", linewidth=0.8)
        axis.set_yticks(range(len(rows)), ["all, mixed" if row is None else label(row) for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        axis.set(xlabel="accept length: completion tokens / verify steps")
        legend(figure, {arm: shown[arm] for arm in arms})
        return Plot(
            "accept_lengths",
            f"Accept length by task, {words.setting_title(setting)}",
            "Completion tokens / verify steps, the bonus token included. Whiskers: 95% interval over prompts.",
            "Accept length by task and arm",
            as_svg(figure),
        )


def by_position(found: dict[str, Any], shown: dict[str, Style], setting: str, arm: str | None) -> Plot | None:
    """Of the arms, and of the drafters of one arm."""
    cells = found["settings"][setting]["arms"]
    arms = {name: cells[name]["all"]["accept_rate_by_position"] for name in shown if name in cells}
    drafters = cells[arm]["drafters"] if arm in cells else {}
    own = {name: group["accept_rate_by_position"] for name, group in drafters.items()}
    parts = [({name: rates for name, rates in part.items() if rates}) for part in (arms, own)]
    if not parts[0]:
        return None
    with drawing():
        figure, axes = panels(2 if len(parts[1]) > 1 else 1, 4.4, sharey=True)
        for axis, part, looks in zip(axes, parts, (shown, styles([f" {name}" for name in parts[1]])), strict=False):
            for name, rates in part.items():
                _curve(axis, name, rates, looks.get(name) or looks[f" {name}"])
            axis.set(xlabel="position of the draft token", ylim=(0, 1.02))
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.set_ylabel("right, where all before it were")
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8.5)
        axes[0].set_title("by arm")
        if len(axes) > 1:
            axes[1].set_title(f"drafters of {label(str(arm))}")
        return Plot(
            "by_position",
            f"Accept rate by position, {words.setting_title(setting)}",
            "Of the verify steps that found all earlier drafts right, the share that found this one right too. A step"
            " that proposed fewer counts as not right, so an arm that mixes drafters of different lengths falls at the"
            f" end. Hollow: fewer than {FEW} steps.",
            "Accept rate by position in the draft",
            as_svg(figure),
        )


def _curve(axis: Any, name: str, rates: list[dict[str, Any]], style: Style) -> None:
    places, values = [entry["position"] for entry in rates], [entry["rate"] for entry in rates]
    axis.plot(places, values, color=style.color, linewidth=1.2)
    axis.plot([], [], color=style.color, marker=style.marker, label=label(name, 24))
    for entry in rates:
        face = style.color if entry["steps"] >= FEW else "white"
        axis.plot(
            entry["position"], entry["rate"], color=style.color, marker=style.marker, markerfacecolor=face, markersize=6
        )
