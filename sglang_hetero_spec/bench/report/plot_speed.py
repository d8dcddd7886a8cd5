"""Plots of speeds: of each arm, as ratios by load, by task, and over the time of the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sglang_hetero_spec.bench.records import BlockRecord
from sglang_hetero_spec.bench.report.style import Plot, Style, as_svg, drawing, errors, label, legend, panels
from sglang_hetero_spec.bench.results import words

_SPEED = "server_tokens_per_second"


def speeds(found: dict[str, Any], shown: dict[str, Style]) -> Plot | None:
    """Bars, an error bar, and a ring for each repetition."""
    settings = _settings(found, lambda arm: arm["all"][_SPEED]["value"] is not None)
    if not settings:
        return None
    with drawing():
        figure, axes = panels(len(settings), 0.34 * len(shown) + 0.9)
        for axis, setting in zip(axes, settings, strict=True):
            arms = [arm for arm in shown if _value(found, setting, arm) is not None]
            for place, arm in enumerate(arms):
                item = found["settings"][setting]["arms"][arm]["all"][_SPEED]
                axis.barh(place, item["value"], color=shown[arm].color, alpha=0.55, height=0.72)
                axis.errorbar(item["value"], place - 0.16, xerr=errors(item), color="#1d2127", capsize=3, linewidth=1.2)
                each = [value for value in item["by_repetition"] if value is not None]
                axis.plot(
                    each, [place + 0.16] * len(each), "o", color="#1d2127", markerfacecolor="none", markersize=3.5
                )
                end = max([item["value"], item["high"] or 0, *each])
                axis.annotate(
                    words.digits(item["value"]), (end, place), (5, 0), textcoords="offset points", va="center"
                )
            axis.set_yticks(range(len(arms)), [label(arm) for arm in arms])
            axis.invert_yaxis()
            axis.margins(x=0.14)
            axis.set_xlim(left=0)
            axis.grid(axis="y", visible=False)
            axis.set(title=words.setting_title(setting), xlabel="tokens/s of the server")
        return Plot(
            "speeds",
            "Speed of the server",
            "Completion tokens of all requests / wall time. Bars: all repetitions; whiskers: 95% interval over"
            " repetitions; rings: single repetitions.",
            "Bars of tokens per second of the server, by arm and setting",
            as_svg(figure),
        )


def ratios_by_load(found: dict[str, Any], shown: dict[str, Style]) -> Plot | None:
    """Each arm over the baseline, setting by setting."""
    settings, baseline = list(found["settings"]), found["baseline"]
    arms = [arm for arm in shown if any(_ratio(found, setting, arm, baseline) for setting in settings)]
    if not arms:
        return None
    with drawing():
        figure, (axis,) = panels(1, 4.2)
        axis.axhline(1, color=shown[baseline].color, linestyle="--", linewidth=1.2)
        for place, arm in enumerate(arms):
            shift = 0.22 * (place - (len(arms) - 1) / 2) / len(arms)
            points = [(x + shift, item) for x, s in enumerate(settings) if (item := _ratio(found, s, arm, baseline))]
            style = shown[arm]
            axis.plot(
                [x for x, _ in points], [i["value"] for _, i in points], color=style.color, linewidth=1, alpha=0.6
            )
            for x, item in points:
                axis.errorbar(
                    x, item["value"], yerr=errors(item), color=style.color, marker=style.marker, markersize=6, capsize=3
                )
        axis.set_xticks(
            range(len(settings)), [words.setting_title(setting).replace(" (", "\n(") for setting in settings]
        )
        axis.set_xlim(-0.5, len(settings) - 0.5)
        axis.set_ylim(bottom=0)
        axis.grid(axis="x", visible=False)
        axis.set(ylabel=f"tokens/s of the server / that of {label(baseline)}")
        legend(figure, {arm: shown[arm] for arm in arms})
        return Plot(
            "ratios",
            f"Speed over {baseline}, by load",
            "Ratio of server speeds; whiskers: 95% interval of the ratios of repetitions of one number. Above the"
            " dashed line an arm is faster than the baseline.",
            "Ratio of server speed to the baseline, by setting and arm",
            as_svg(figure),
        )


def ratios_by_task(found: dict[str, Any], shown: dict[str, Style], arm: str, bases: Sequence[str]) -> Plot | None:
    """One arm over others, task by task, as one user sees it."""
    settings = [name for name, item in found["settings"].items() if any(f"{arm}/{b}" in item["ratios"] for b in bases)]
    if not settings:
        return None
    rows = [*found["tasks"], None]
    with drawing():
        figure, axes = panels(len(settings), 0.34 * len(rows) + 1.2, sharey=True)
        for axis, setting in zip(axes, settings, strict=True):
            axis.axvline(1, color="#59616c", linestyle="--", linewidth=1.2)
            for place, base in enumerate(bases):
                shift = 0.5 * (place - (len(bases) - 1) / 2) / max(1, len(bases))
                ratios = found["settings"][setting]["ratios"].get(f"{arm}/{base}")
                _dots(axis, [_of_row(ratios, row) for row in rows], shift, shown[base])
            axis.set_yticks(range(len(rows)), ["all, mixed" if row is None else label(row, 24) for row in rows])
            axis.set_ylim(len(rows) - 0.5, -0.5)
            axis.set(title=words.setting_title(setting), xlabel=f"tokens/s of one user, {label(arm)} / other")
        legend(figure, {f"{arm} / {base}": shown[base] for base in bases})
        return Plot(
            "tasks",
            f"What {arm} gains on each task",
            "Ratio of the speeds of one request; whiskers: 95% bootstrap interval over prompts, drawn for both arms"
            " alike. Right of the dashed line it is faster.",
            f"Ratio of request speeds of {arm} to other arms, by task",
            as_svg(figure),
        )


def drift(found: dict[str, Any], blocks: Sequence[BlockRecord], shown: dict[str, Style]) -> Plot | None:
    """Each block's speed over its arm's, in the order in which they ran."""
    settings = _settings(found, lambda arm: len(arm["all"][_SPEED]["by_repetition"]) > 1)
    if not settings:
        return None
    with drawing():
        figure, axes = panels(len(settings), 2.6, sharey=True)
        for axis, setting in zip(axes, settings, strict=True):
            axis.axhline(0, color="#59616c", linewidth=1)
            for arm in shown:
                points = _deviations(found, blocks, setting, arm)
                style = {"color": shown[arm].color, "marker": shown[arm].marker}
                axis.plot(
                    *zip(*points, strict=True), linewidth=0.7, alpha=0.8, markersize=5.5, **style
                ) if points else None
            axis.set(title=words.setting_title(setting), xlabel="place of the block in the run")
            axis.set_ylabel("over the arm's mean, %")
        legend(figure, shown)
        return Plot(
            "drift",
            "Did the machine drift?",
            "Tokens/s of each block over its arm's own mean, in the order in which the blocks ran. Arms alternate, so"
            " what makes all of them slower for a while changes no ratio much.",
            "Speed of each block relative to its arm's mean, by time",
            as_svg(figure),
        )


def _deviations(
    found: dict[str, Any], blocks: Sequence[BlockRecord], setting: str, arm: str
) -> list[tuple[int, float]]:
    """(order, percent)."""
    mine = sorted((one for one in blocks if (one.arm, one.setting) == (arm, setting)), key=lambda one: one.repetition)
    if arm not in found["settings"][setting]["arms"]:
        return []
    each = found["settings"][setting]["arms"][arm]["all"][_SPEED]["by_repetition"]
    known = [(one.order, speed) for one, speed in zip(mine, each, strict=False) if speed is not None]
    mean = sum(speed for _, speed in known) / len(known) if known else 0
    return sorted((order, 100 * (speed / mean - 1)) for order, speed in known) if mean else []


def _dots(axis: Any, items: Sequence[dict[str, Any] | None], shift: float, style: Style) -> None:
    for place, item in enumerate(items):
        if item is not None and item["value"] is not None:
            axis.errorbar(
                item["value"], place + shift, xerr=errors(item), color=style.color, marker=style.marker, capsize=2
            )


def _of_row(ratios: dict[str, Any] | None, task: str | None) -> dict[str, Any] | None:
    if ratios is None:
        return None
    group = ratios["all"] if task is None else ratios["tasks"].get(task)
    return group["request_tokens_per_second"] if group else None


def _ratio(found: dict[str, Any], setting: str, arm: str, base: str) -> dict[str, Any] | None:
    ratios = found["settings"][setting]["ratios"].get(f"{arm}/{base}")
    item = ratios["all"][_SPEED] if ratios else None
    return item if item and item["value"] is not None else None


def _value(found: dict[str, Any], setting: str, arm: str) -> float | None:
    item = found["settings"][setting]["arms"].get(arm)
    return item["all"][_SPEED]["value"] if item else None


def _settings(found: dict[str, Any], has: Any) -> list[str]:
    return [name for name, item in found["settings"].items() if any(has(arm) for arm in item["arms"].values())]
