"""The learning curve: curve.jsonl, raw counts on held-out answers at each evaluation."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sglang_hetero_spec.build.align.errors import AlignStopped
from sglang_hetero_spec.build.align.evaluate import Counts
from sglang_hetero_spec.files import write_lines


@dataclass(frozen=True)
class Point:
    """loss: mean over the steps since the point before (null at step 0). tokens: seen so far. seconds: of training."""

    step: int
    tokens: int
    loss: float | None
    seconds: float
    counts: Counts

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"counts": self.counts.as_dict()}


class Curve:
    """The points of a run; on disk after each one. What to do next (stop, keep which step) follows from it alone."""

    def __init__(self, path: Path, is_writer: bool = True) -> None:
        self.path, self._is_writer = path, is_writer
        self.points: list[Point] = []

    def start(self, step: int) -> None:
        """Take up what is on disk up to `step`: later points came after the checkpoint that a run goes on from."""
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1] if self.path.is_file() else []
        self.points = [point for point in map(_point, lines) if point.step <= step]
        self._write()

    def add(self, point: Point) -> None:
        self.points.append(point)
        self._write()

    @property
    def best(self) -> Point:
        """The first point with the highest accept rate."""
        return max(self.points, key=lambda point: (point.counts.accept_rate, -point.step))

    def is_over(self, patience: int) -> bool:
        """Whether the last `patience` points brought nothing better."""
        places = [point.step for point in self.points]
        return patience > 0 and len(places) - 1 - places.index(self.best.step) >= patience

    def _write(self) -> None:
        if self._is_writer:
            write_lines(self.path, (json.dumps(point.as_dict()) for point in self.points), AlignStopped)


def _point(line: str) -> Point:
    found = json.loads(line)
    counts = found["counts"]
    correct = tuple(counts.pop("correct_by_position"))
    loss = found["loss"]
    if loss is not None and not math.isfinite(loss):
        loss = None
    return Point(found["step"], found["tokens"], loss, found["seconds"], Counts(**counts, correct_by_position=correct))
