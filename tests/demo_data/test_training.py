"""The training parts on toy sizes: no training is run here that takes longer than a second or two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sglang_hetero_spec.demo.train.batches import Row, pad, plan
from sglang_hetero_spec.demo.train.evaluate import measure
from sglang_hetero_spec.demo.train.generate import Answered, answer
from sglang_hetero_spec.demo.train.loop import Rates, train
from sglang_hetero_spec.demo.train.model import Shape, TinyLlama

SHAPE = Shape(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=48, vocab=60, context=128, head_dim=16)
EOS = 2


@pytest.fixture(scope="module")
def model() -> TinyLlama:
    made = TinyLlama(SHAPE, seed=3)
    with torch.no_grad():
        made.model.embed_tokens.weight.mul_(20)
    return made.eval()


def _rows(lengths: list[int]) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    return [Row("t", torch.randint(3, 60, (n,), generator=generator).tolist(), [3] * 5) for n in lengths]


def test_batched_answers_equal_a_plain_loop(model: TinyLlama) -> None:
    rows = _rows([3, 9, 1, 6, 12])
    found = answer(model, rows, EOS, 20, batch=3, report=lambda n, total: None)
    for row, item in zip(rows, found, strict=True):
        ids, expected = list(row.prompt), []
        while len(expected) < 20 and (not expected or expected[-1] != EOS):
            with torch.inference_mode():
                expected.append(int(model.logits(model.hidden(torch.tensor([ids]))[0, -1]).argmax()))
            ids.append(expected[-1])
        assert item.row.answer == expected and item.row.prompt == row.prompt
        assert model.logits(item.hidden.float()).argmax(-1).tolist()[:3] == expected[:3]


def test_a_target_that_drafts_for_itself_accepts_everything(model: TinyLlama) -> None:
    rows = _rows([4, 7, 5])
    found = answer(model, rows, EOS, 21, batch=8, report=lambda n, total: None)
    counts = measure(model, found, num_steps=4)
    # 20 tokens after the first, 5 a verify step.
    expected = sum(-(-(len(a.row.answer) - 1) // 5) for a in found)
    assert counts.steps == expected and counts.tokens == sum(len(a.row.answer) - 1 for a in found)


def test_counts_of_a_known_run() -> None:
    class Fixed(TinyLlama):
        """Says token + 1 always."""

        def hidden(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot((ids + 1) % 60, 60).float()

        def logits(self, hidden: torch.Tensor) -> torch.Tensor:
            return hidden

    row = Row("t", [9], [10, 11, 12, 40, 41, 42, 43, 44, 45])
    counts = measure(Fixed(SHAPE), [Answered(row, torch.zeros(9, 1))], num_steps=4)
    # 11 12 are right, 40 is the target's own; then 41 42 43 44 are right and 45 is the bonus.
    assert (counts.steps, counts.correct, counts.proposed, counts.tokens) == (2, 6, 8, 8)


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
