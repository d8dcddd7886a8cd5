"""Drafters on CUDA streams of their own propose what they propose one after another."""

from __future__ import annotations

from collections.abc import Hashable

import pytest
import torch

from sglang_hetero_spec.cuda.streams import Parallel, Serial

SIZE, STEPS, ROUNDS = 512, 6, 40


class SmallModel:
    """A chain by a matrix of its own; temporaries of unequal sizes come and go, as in a real forward."""

    waits = False

    def __init__(self, seed: int) -> None:
        generator = torch.Generator("cuda").manual_seed(seed)
        self.weight = torch.randn(SIZE, SIZE, generator=generator, device="cuda")

    @property
    def lane(self) -> Hashable:
        return id(self)

    together = lane

    def propose(self, roots: torch.Tensor) -> torch.Tensor:
        tokens = [roots % SIZE]
        for step in range(STEPS):
            hidden = self.weight[tokens[-1]]
            for _ in range(step + 4):
                hidden = torch.tanh(hidden @ self.weight / SIZE**0.5)
            tokens.append(hidden.argmax(-1))
        return torch.stack(tokens, 1)


@pytest.mark.parametrize("num_drafters", [2, 4])
def test_the_same_trees(num_drafters: int) -> None:
    models = [SmallModel(seed) for seed in range(num_drafters)]
    found = []
    for way in (Serial(), Parallel(torch.cuda)):
        roots, kept = torch.arange(32, device="cuda"), []
        for _ in range(ROUNDS):
            before = roots
            trees = way.run(models, lambda number, before=before: models[number].propose(before + number))
            # What the current stream makes of the trees decides the next step; blocks are dropped and used again.
            roots = torch.stack([tree[:, -1] for tree in trees]).sum(0)
            kept.append(torch.cat(trees).clone())
        found.append(torch.stack(kept))
    assert torch.equal(*found)
    assert found[0][0].ne(found[0][1]).any(), "steps differ, or the test shows nothing"
