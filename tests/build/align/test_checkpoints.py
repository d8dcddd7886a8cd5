from __future__ import annotations

from pathlib import Path

from sglang_hetero_spec.build.align import checkpoints
from sglang_hetero_spec.build.align.curve import Curve, Point
from sglang_hetero_spec.build.align.evaluate import Counts
from sglang_hetero_spec.build.align.training import evaluation_steps, steps_of


def write(folder: Path, step: int, whole: bool = True) -> None:
    path = checkpoints.path_of(folder, step)
    path.mkdir()
    (path / "model.safetensors").touch()
    if whole:
        checkpoints.mark_complete(path)


def test_a_torn_checkpoint_is_never_gone_on_from(tmp_path: Path) -> None:
    assert checkpoints.latest(tmp_path) is None
    write(tmp_path, 9)
    write(tmp_path, 10)
    write(tmp_path, 11, whole=False)
    assert checkpoints.latest(tmp_path) == checkpoints.path_of(tmp_path, 10)
    checkpoints.remove_torn(tmp_path)
    assert not checkpoints.path_of(tmp_path, 11).exists()


def test_the_best_and_the_newest_stay(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8, 10):
        write(tmp_path, step)
    checkpoints.keep_only(tmp_path, 2, {4})
    assert checkpoints.complete_steps(tmp_path) == [4, 8, 10]


def point(step: int, correct: int) -> Point:
    return Point(step, 10 * step, 1.0, 0.5, Counts(1, 10, 10, (correct,), 20))


def test_the_curve_says_what_is_best_and_when_it_is_over(tmp_path: Path) -> None:
    curve = Curve(tmp_path / "curve.jsonl")
    for step, correct in enumerate([1, 5, 5, 4]):
        curve.add(point(step, correct))
    assert curve.best.step == 1  # the first of equals
    assert curve.is_over(2)
    assert not curve.is_over(3)
    assert not curve.is_over(0)


def test_the_curve_is_taken_up_at_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    curve = Curve(path)
    for step in range(4):
        curve.add(point(step, step))
    again = Curve(path)
    again.start(2)
    assert again.points == curve.points[:3]
    assert len(path.read_text().splitlines()) == 3


def test_the_last_step_is_evaluated() -> None:
    for steps in (1, 2, 7, 16, 51, 1000):
        chosen = evaluation_steps(steps, 16)
        assert max(chosen) == steps and min(chosen) >= 1 and len(chosen) <= 16


def test_steps_cover_all_batches() -> None:
    assert steps_of(10, 1, 1) == 10
    assert steps_of(10, 4, 1) == 3
    assert steps_of(10, 1, 4) == 3
