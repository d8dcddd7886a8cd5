"""What drafters propose in graphs is what they propose without: no forward's logits are needed after the next one.

Runs under TRITON_INTERPRET=1 (test_on_cpu.py starts it).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sglang_hetero_spec.cuda.graphs.draft_graphs import DraftGraphs
from sglang_hetero_spec.drafters.base import DraftBatch
from sglang_hetero_spec.drafters.standalone import StandaloneDrafter
from sglang_hetero_spec.drafters.tree import DraftTree
from sglang_hetero_spec.pool import DrafterSpec
from sglang_hetero_spec.worker.draft_sampling import DraftSampler
from tests.flashinfer_on_cpu.check_draft_graphs import captured
from tests.flashinfer_on_cpu.world import Drafting, World, write_model

LENS = [40, 3, 17, 90]
CHAIN = DrafterSpec("chain", "standalone", None, "shared", 4, 1, 5)
TREE = DrafterSpec("tree", "standalone", None, "shared", 4, 3, 8)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(write_model("gqa", tmp_path_factory.mktemp("models")), 16)


@pytest.fixture(scope="module")
def graphs(world: World) -> DraftGraphs:
    return captured(world)


def proposed(drafting: Drafting, spec: DrafterSpec, **asked: object) -> list[DraftTree]:
    """Of three steps, each behind what the last one proposed first."""
    drafter = StandaloneDrafter(spec, drafting.model)
    drafting.lens = list(LENS)
    trees = []
    for step in range(3):
        batch: DraftBatch = replace(drafting.batch(newcomers=step == 0), **asked)
        trees.append(drafter.propose(batch))
        drafting.lens = [length + 2 for length in drafting.lens]
    return trees


def sampler() -> DraftSampler:
    generator = torch.Generator().manual_seed(5)
    temperatures = torch.full((len(LENS), 1), 1.5)
    return DraftSampler(temperatures, None, None, None, None, torch.rand(len(LENS), 4, generator=generator))


@pytest.mark.parametrize("spec", [CHAIN, TREE], ids=lambda spec: spec.name)
@pytest.mark.parametrize("asked", [{}, {"wants_scores": True}, {"sampler": True}], ids=["greedy", "scores", "drawn"])
def test_in_graphs_and_without(world: World, graphs: DraftGraphs, spec: DrafterSpec, asked: dict) -> None:
    if "sampler" in asked:
        asked = {"sampler": sampler()}
    drafting = Drafting(world, LENS)
    wanted = proposed(drafting, spec, **asked)
    world.spoil()
    drafting = Drafting(world, LENS)
    drafting.model.graphs = graphs
    world.clear_slot_zero()
    for found, want in zip(proposed(drafting, spec, **asked), wanted, strict=True):
        assert torch.equal(found.tokens, want.tokens) and torch.equal(found.parents, want.parents)
        for name in ("probs", "scores"):
            one, other = (getattr(tree.law if name == "probs" else tree, name, None) for tree in (found, want))
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
