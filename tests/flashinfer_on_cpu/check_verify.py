"""Target verification on SGLang's FlashInfer backend and on ours: merged trees of several drafters, with their masks.

Runs under TRITON_INTERPRET=1 (test_on_cpu.py starts it).
"""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
from sglang.srt.model_executor.forward_batch_info import ForwardBatch, ForwardMode
from sglang.srt.runtime_context import get_spec

from sglang_hetero_spec.cuda.attn_backend import TreeFlashInferBackend, TreeMetadata
from sglang_hetero_spec.cuda.graphs.draft_graphs import ShapeGraphs
from sglang_hetero_spec.cuda.graphs.shapes import GraphShape
from sglang_hetero_spec.worker import merged_input as merging
from sglang_hetero_spec.worker.draft_model import Lens
from sglang_hetero_spec.worker.merge import MergedTree, Proposal
from tests.cuda.interpreter.check_merge import draft_tree
from tests.cuda.rerun import RerunRecorder
from tests.flashinfer_on_cpu.on_cpu import pretending
from tests.flashinfer_on_cpu.world import VOCAB, Drafting, World, close, write_model
from tests.worker.proposals import proposal

MOST = 16
BATCHES = [[0], [40, 3, 17, 1, 0], [200, 5, 31, 33]]
KINDS = [("gqa", 1), ("mha", 16), ("window", 16)]


@pytest.fixture(scope="module", params=KINDS, ids=str)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    kind, page_size = request.param
    return World.make(write_model(kind, tmp_path_factory.mktemp("models")), page_size)


@pytest.fixture(params=["stock", "parts"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SGLANG_HETERO_SPEC_VERIFY", request.param)
    return request.param


def target_backend(world: World, width: int) -> TreeFlashInferBackend:
    with get_spec().override(speculative_num_draft_tokens=width):
        made = world.use(TreeFlashInferBackend)
    assert isinstance(made, TreeFlashInferBackend)
    return made


def proposals_for(rng: random.Random, roots: list[int], most: int) -> list[Proposal]:
    """Of up to three drafters; some requests have none. Tokens are the target's."""
    places: dict[int, list[int]] = {}
    for place in range(len(roots)):
        places.setdefault(rng.choice([-1, 0, 1, 2]), []).append(place)
    made = []
    for drafter, own in places.items():
        if drafter >= 0:
            shape = rng.choice(["chain", "branching", "padded"])
            tree = draft_tree(rng, [roots[place] for place in own], rng.randint(1, most), shape)
            tree.tokens.remainder_(VOCAB)
            made.append(proposal(drafter, own, tree))
    return made


class Verifying(Drafting):
    """Requests whose committed tokens the target has read, and a merged tree for each."""

    def __init__(self, world: World, lens: list[int], seed: int, most: int) -> None:
        super().__init__(world, lens, seed)
        if max(lens):
            self.model.catch_up(self.batch(), 1)
        roots = self.batch(newcomers=False).root_tokens
        self.proposals = proposals_for(random.Random(seed), roots.tolist(), most)
        self.width = max((each.tree.width for each in self.proposals), default=1)

    def verify_batch(self, width: int) -> tuple[MergedTree, ForwardBatch]:
        batch = self.batch(newcomers=False)
        lens = batch.seq_lens_cpu
        assert lens is not None
        scheduled = SimpleNamespace(seq_lens=batch.seq_lens, seq_lens_cpu=lens, seq_lens_sum=int(lens.sum()))
        with pretending():
            merged, spec_info = merging.merged_input(
                batch.root_tokens, self.proposals, width, VOCAB, scheduled, self.world.runner
            )
        slots = self.world.table[self.rows.unsqueeze(1), batch.seq_lens.unsqueeze(1) + torch.arange(width)]
        return merged, self.model._forward_batch(
            ForwardMode.TARGET_VERIFY,
            self.rows,
            tokens=spec_info.draft_token,
            positions=spec_info.positions,
            slots=slots.flatten().long(),
            seq_lens=Lens(batch.seq_lens, lens),
            spec_info=spec_info,
        )

    def check(self, merged: MergedTree, logits: torch.Tensor) -> None:
        """logits: [b * D, V]. Of every node that hangs on its root."""
        found = logits.view(*merged.tokens.shape, -1)
        for number, (tokens, parents) in enumerate(zip(merged.tokens.tolist(), merged.parents.tolist(), strict=True)):
            context = self.context(number)
            paths: dict[int, list[int]] = {0: []}
            for node in range(1, len(tokens)):
                if parents[node] in paths:
                    paths[node] = [*paths[parents[node]], tokens[node]]
            for node, path in paths.items():
                close(found[number, node], self.world.logits([*context, *path])[-1])


@pytest.mark.parametrize("merge", ["torch", "triton"])
@pytest.mark.parametrize("lens", BATCHES, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_without_graphs(
    world: World, way: str, lens: list[int], seed: int, merge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "merges_in_triton", lambda device: merge == "triton")
    backend = target_backend(world, MOST)
    verifying = Verifying(world, lens, seed, [1, 4, MOST][seed])
    merged, batch = verifying.verify_batch(verifying.width)
    logits = world.runner.forward(batch).logits_output.next_token_logits
    in_parts = isinstance(backend.forward_metadata, TreeMetadata)
    assert in_parts == (way == "parts" or world.runner.sliding_window_size is not None)
    verifying.check(merged, logits)


@pytest.fixture
def graphs(world: World, way: str) -> ShapeGraphs:
    """Of the width that the server was started with, for 5 and for 2 requests."""
    width, largest = 7, 5
    backend = target_backend(world, width)
    backend.init_cuda_graph_state(largest, largest * width)
    assert backend._graphs_in_parts == (way == "parts" or world.runner.sliding_window_size is not None)
    logits = torch.zeros(largest * width, VOCAB)
    made = ShapeGraphs(
        world.runner, GraphShape("tree", width), largest, backend, RerunRecorder(backend), logits, None, None
    )
    for size in (largest, 2):
        made.capture(size)
    # SGLang's runner of captured graphs, as far as a verify input asks.
    world.runner.decode_cuda_graph_runner = SimpleNamespace(max_bs=largest)
    return made


@pytest.mark.parametrize("seed", range(2))
def test_in_graphs_of_all_sizes_one_after_the_other(
    world: World, graphs: ShapeGraphs, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lens in ([200, 5, 31, 33, 2], [40], [3, 60, 17], [1, 0], [90, 90, 90, 90]):
        verifying = Verifying(world, lens, seed, graphs.shape.width)
        world.clear_slot_zero()
        merged, batch = verifying.verify_batch(graphs.shape.width)
        verifying.check(merged, graphs.run(batch, None))


def test_a_batch_that_is_too_large_for_the_graphs(world: World, graphs: ShapeGraphs) -> None:
    verifying = Verifying(world, [3, 40, 17, 1, 9, 8, 7], 1, 5)
    assert not graphs.holds(7)
    merged, batch = verifying.verify_batch(graphs.shape.width)
    verifying.check(merged, world.runner.forward(batch).logits_output.next_token_logits)
    verifying = Verifying(world, [40, 2], 2, 5)
    world.clear_slot_zero()
    merged, batch = verifying.verify_batch(graphs.shape.width)
    verifying.check(merged, graphs.run(batch, None))
