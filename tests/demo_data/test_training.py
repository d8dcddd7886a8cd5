"""The training parts on toy sizes: no training is run here that takes longer than a second or two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sglang_hetero_spec.demo.train.batches import Row, pad, plan
from sglang_hetero_spec.demo.train.loop import Rates, train
from sglang_hetero_spec.demo.train.model import Shape, TinyLlama

SHAPE = Shape(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=48, vocab=60, context=128, head_dim=16)


def test_plan_covers_each_epoch_and_keeps_the_budget() -> None:
    lengths = [5 + i % 17 for i in range(100)]
    batches = plan(lengths, batch_tokens=64, budget=2 * sum(lengths), seed=1)
    flat = [i for batch in batches for i in batch]
    assert sorted(flat) == sorted([*range(100), *range(100)])
    assert all(max(lengths[i] for i in batch) * len(batch) <= 64 for batch in batches)
    assert batches == plan(lengths, 64, 2 * sum(lengths), seed=1)


def test_pad_marks_the_positions_that_predict_answers() -> None:
    ids, predicts = pad([Row("t", [1, 5, 6], [7, 2]), Row("t", [1], [8, 9, 2])])
    assert ids.tolist() == [[1, 5, 6, 7, 2], [1, 8, 9, 2, 0]]
    assert predicts.tolist() == [[False, False, True, True, False], [True, True, True, False, False]]


def test_training_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sglang_hetero_spec.demo.train.loop.SAVE_EVERY_S", 0.0)
    ids = torch.arange(40).reshape(4, 10) % 60

    def run(stop: int | None, checkpoint: Path) -> tuple[TinyLlama, list[int]]:
        model, seen = TinyLlama(SHAPE, seed=1), []

        def loss(step: int) -> torch.Tensor:
            if step == stop:
                raise KeyboardInterrupt
            seen.append(step)
            return torch.nn.functional.cross_entropy(
                model.logits(model.hidden(ids[:, :-1])).flatten(0, 1), ids[:, 1:].flatten()
            )

        try:
            train(model, 12, loss, Rates(1e-2, 1e-2), checkpoint, lambda *_: None)
        except KeyboardInterrupt:
            assert stop is not None
        return model, seen

    whole, _ = run(None, tmp_path / "a")
    run(7, tmp_path / "b")
    again, seen = run(None, tmp_path / "b")
    assert seen == [7, 8, 9, 10, 11] and not (tmp_path / "b").exists()
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
