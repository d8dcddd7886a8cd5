"""Where a sorted drafter leaves its model, and what it says to the worker, over a model in plain Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from sglang_hetero_spec.drafters.base import DraftBatch
from sglang_hetero_spec.drafters.sorted import SortedDrafter, confidence
from sglang_hetero_spec.pool import DrafterSpec
from sglang_hetero_spec.pool.exits import taken

STEPS, VOCAB = 3, 5


class FakeSorted:
    """confidences[step][exit][request] of token `exit`, whatever was drafted before."""

    def __init__(self, confidences: Sequence[Sequence[Sequence[float]]]) -> None:
        self.confidences = confidences
        self.calls: list[tuple] = []
        self.step = 0

    def catch_up(self, batch: DraftBatch, window: int) -> None:
        self.calls.append(("catch_up", window))

    def read_window(self, batch: DraftBatch, window: int) -> torch.Tensor:
        self.calls.append(("window", window))
        return self.logits(0, range(len(batch.rows)))

    def read_next(self, batch: DraftBatch, tokens: torch.Tensor, offset: int) -> torch.Tensor:
        self.step = offset
        self.calls.append(("next", tuple(tokens.tolist())))
        return self.logits(0, range(len(tokens)))

    def read_deeper(self, batch: DraftBatch, exit: int, members: Sequence[int]) -> torch.Tensor:
        self.calls.append(("deeper", exit, tuple(members)))
        return self.logits(exit, members)

    def logits(self, exit: int, members: Sequence[int]) -> torch.Tensor:
        wanted = torch.tensor([self.confidences[self.step][exit][member] for member in members])
        rest = ((1 - wanted) / (VOCAB - 1)).unsqueeze(1).expand(-1, VOCAB).clone()
        rest[:, exit] = wanted
        return rest.log()


def drafter(model: FakeSorted, thresholds: tuple[float, ...] = (0.6, 0.8), steps: int = STEPS) -> SortedDrafter:
    exits = tuple(range(1, len(thresholds) + 2))
    spec = DrafterSpec("s", "sorted", None, "shared", steps, 1, steps + 1, exits=exits, thresholds=thresholds)
    return SortedDrafter(spec, model)


def batch(size: int, **fields: object) -> DraftBatch:
    return DraftBatch(torch.arange(size), torch.full((size,), 7), torch.zeros(size, dtype=torch.int64), **fields)


ROUND = [
    [[0.7, 0.5, 0.3], [0.0, 0.9, 0.5], [0.0, 0.0, 0.4]],  # 0 leaves at once, 1 in the middle, 2 at the end
    [[0.9, 0.9, 0.9], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]],  # nobody goes deeper
    # Doubts times how likely the drafts so far are right: 0.7 * 0.63, 0.3 * 0.63 (so late, 0.7 is as good as 0.8);
    # 0.7 * 0.81, 0.2 * 0.81; 0.7 * 0.36, which suffices.
    [[0.3, 0.3, 0.3], [0.7, 0.8, 0.0], [0.9, 0.0, 0.0]],
]


def test_each_token_is_that_of_the_first_exit_that_is_sure() -> None:
    model = FakeSorted(ROUND)
    tree = drafter(model).propose(batch(3, newcomers=(1,), newcomer_lens=(7,)))
    assert tree.tokens.tolist() == [[0, 0, 0, 1], [0, 1, 0, 1], [0, 2, 0, 0]]
    assert tree.is_chain and tree.num_fed == 0
    assert model.calls == [
        ("catch_up", 2), ("window", 2), ("deeper", 1, (1, 2)), ("deeper", 2, (2,)),
        ("next", (0, 1, 2)),
        ("next", (0, 0, 0)), ("deeper", 1, (0, 1)),
    ]  # fmt: skip


def test_a_fixed_exit_asks_for_nothing_more() -> None:
    model = FakeSorted(ROUND)
    drafter(model, thresholds=()).propose(batch(3))
    assert [call[0] for call in model.calls] == ["window", "next", "next"]


@pytest.mark.parametrize(
    "thresholds, exits, left",
    [
        ((0.5, 0.9), (1, 2, 4), (0.5, 0.9)),
        ((1.0, 0.9), (2, 4), (0.9,)),
        ((0.5, 1.0), (1, 4), (0.5,)),
        ((1.0, 1.0), (4,), ()),
        ((0.5, 0.0), (1, 2), (0.5,)),
        ((0.0, 0.5), (1,), ()),
        ((1.0, 0.0), (2,), ()),
    ],
)
def test_exits_that_are_never_taken_are_not_there(
    thresholds: tuple[float, ...], exits: tuple[int, ...], left: tuple[float, ...]
) -> None:
    spec = DrafterSpec("s", "sorted", None, "shared", 3, 1, 4, exits=(1, 2, 4), thresholds=thresholds)
    assert taken(spec) == replace(spec, exits=exits, thresholds=left)


def test_the_window_covers_what_another_drafter_may_have_written() -> None:
    model = FakeSorted(ROUND)
    drafter(model).propose(batch(3, lag=4))
    assert model.calls[0] == ("window", 5)


class Coin:
    """Draws the second likeliest token."""

    temperatures = torch.full((3, 1), 2.0)

    def draw(self, logits: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        law = (logits / self.temperatures).softmax(dim=-1)
        return law.topk(2).indices[:, 1], law


def test_the_law_of_a_drawn_token_is_that_of_its_exit() -> None:
    """Also that temperature does not change where it leaves."""
    model = FakeSorted(ROUND)
    tree = drafter(model).propose(batch(3, sampler=Coin()))
    left = [[0, 0, 1], [1, 0, 1], [2, 0, 0]]
    for request, exits in enumerate(left):
        for step, exit in enumerate(exits):
            model.step = step
            law = (model.logits(exit, [request])[0] / 2.0).softmax(-1)
            torch.testing.assert_close(tree.law.probs[request, step], law)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_confidence(bad: float) -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.0, bad, 0.0]])
    found = confidence(logits)
    assert found[0].item() == pytest.approx(logits[0].softmax(-1).max().item())
    assert torch.isfinite(found).all()
