"""Learning curves, one small picture for each drafter, all on one scale; and the router's threshold curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sglang_hetero_spec.build.report.sources import Learned, Point, Threshold
from sglang_hetero_spec.build.report.svg import Element, Scale, add, canvas, points, render, ticks, tip
from sglang_hetero_spec.build.report.text import length, percent, shortened, size, speed, whole

_WIDTH, _HEIGHT = 300.0, 190.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 14.0, 30.0, 40.0


@dataclass(frozen=True)
class _Frame:
    """A picture with axes: `x` and `y` place data in it."""

    root: Element
    x: Scale
    y: Scale


def learning_charts(learned: Sequence[Learned]) -> list[Markup]:
    """One for each drafter that has a curve."""
    with_curve = [item for item in learned if item.curve]
    lengths = [point.counts.accept_length for item in with_curve for point in item.curve]
    return [_learning_chart(item, min(lengths), max(lengths)) for item in with_curve]


def _learning_chart(learned: Learned, low: float, high: float) -> Markup:
    best = learned.best
    assert best is not None
    last = max(point.tokens for point in learned.curve)
    label = f"Learning curve of {learned.name}: accept length {length(best.counts.accept_length)} at its best"
    frame = _frame(
        (_WIDTH, _HEIGHT),
        label,
        x=(ticks(0, max(1, last), 3), "tokens seen in training", _tokens),
        y=(ticks(low, high, 4), "accept length", lambda value: f"{value:g}"),
    )
    add(frame.root, "text", shortened(learned.name, 32), x=_LEFT, y=18, class_="head")
    _line(frame, [(point.tokens, point.counts.accept_length) for point in learned.curve])
    for point in learned.curve:
        _learning_dot(frame, point, point is best)
    x, y = frame.x(best.tokens), frame.y(best.counts.accept_length)
    at_end = x > _WIDTH - 60
    anchor = "end" if at_end else "middle"
    add(
        frame.root,
        "text",
        length(best.counts.accept_length),
        x=x + (4 if at_end else 0),
        y=y - 9,
        text_anchor=anchor,
        class_="value",
    )
    return render(frame.root)


def _learning_dot(frame: _Frame, point: Point, is_best: bool) -> None:
    place = frame.x(point.tokens), frame.y(point.counts.accept_length)
    dot = add(
        frame.root, "circle", cx=place[0], cy=place[1], r=4.5 if is_best else 2.6, class_="best" if is_best else "point"
    )
    loss = "" if point.loss is None else f", loss {point.loss:.3f}"
    counts = f"{whole(point.counts.completion_tokens)} tokens / {whole(point.counts.verify_steps)} verify steps"
    kept = " (kept)" if is_best else ""
    tip(dot, f"step {whole(point.step)}{kept}: accept length {length(point.counts.accept_length)} = {counts}{loss}")


def threshold_chart(threshold: Threshold) -> Markup:
    """Expected tokens per second by min_confidence, the chosen one marked."""
    speeds = [point.tokens_per_second for point in threshold.curve]
    known = [*speeds, threshold.chosen_tokens_per_second, threshold.oracle_tokens_per_second]
    frame = _frame(
        (420.0, 250.0),
        f"Expected tokens per second by min_confidence; chosen {threshold.min_confidence:g}",
        x=([0, 0.25, 0.5, 0.75, 1], "min_confidence", lambda value: f"{value:g}"),
        y=(ticks(min(known), max(known), 4), "tokens per second", lambda value: f"{value:g}"),
    )
    oracle = frame.y(threshold.oracle_tokens_per_second)
    line = add(frame.root, "line", x1=_LEFT, x2=420 - _RIGHT, y1=oracle, y2=oracle, class_="reference")
    tip(line, f"if every route were right: {speed(threshold.oracle_tokens_per_second)} tokens/s")
    _line(frame, [(point.min_confidence, point.tokens_per_second) for point in threshold.curve])
    for point in threshold.curve:
        dot = add(
            frame.root,
            "circle",
            cx=frame.x(point.min_confidence),
            cy=frame.y(point.tokens_per_second),
            r=2,
            class_="point",
        )
        shares = f"{percent(point.routed_share)} routed, {percent(point.wrong_share)} wrongly"
        tip(dot, f"min_confidence {point.min_confidence:g}: {speed(point.tokens_per_second)} tokens/s, {shares}")
    at = frame.x(threshold.min_confidence), frame.y(threshold.chosen_tokens_per_second)
    chosen = add(frame.root, "circle", cx=at[0], cy=at[1], r=5.5, class_="best")
    tip(chosen, f"chosen: {threshold.min_confidence:g}, {speed(threshold.chosen_tokens_per_second)} tokens/s")
    add(
        frame.root,
        "text",
        f"chosen {threshold.min_confidence:g}",
        x=at[0],
        y=at[1] + 20,
        text_anchor=_anchor(at[0], 420),
        class_="value",
    )
    return render(frame.root)


def _anchor(x: float, width: float) -> str:
    return "end" if x > width - 70 else "start" if x < _LEFT + 40 else "middle"


def _line(frame: _Frame, pairs: Sequence[tuple[float, float]]) -> None:
    add(frame.root, "polyline", points=points([(frame.x(x), frame.y(y)) for x, y in pairs]), class_="line")


def _frame(size_: tuple[float, float], label: str, x: tuple, y: tuple) -> _Frame:
    """x, y: ticks, title, and how a tick is written."""
    width, height = size_
    root = canvas(width, height, label, "curve")
    x_scale = Scale(x[0][0], x[0][-1], _LEFT, width - _RIGHT)
    y_scale = Scale(y[0][0], y[0][-1], height - _BOTTOM, _TOP)
    for value in y[0]:
        at = y_scale(value)
        add(root, "line", x1=_LEFT, x2=width - _RIGHT, y1=at, y2=at, class_="grid")
        add(root, "text", y[2](value), x=_LEFT - 6, y=at + 4, text_anchor="end", class_="tick")
    for value in x[0]:
        add(root, "text", x[2](value), x=x_scale(value), y=height - _BOTTOM + 16, text_anchor="middle", class_="tick")
    add(root, "text", x[1], x=(_LEFT + width - _RIGHT) / 2, y=height - 6, text_anchor="middle", class_="axis")
    middle = (_TOP + height - _BOTTOM) / 2
    add(root, "text", y[1], x=11, y=middle, text_anchor="middle", class_="axis", transform=f"rotate(-90 11 {middle:g})")
    return _Frame(root, x_scale, y_scale)


def _tokens(value: float) -> str:
    return size(round(value))
