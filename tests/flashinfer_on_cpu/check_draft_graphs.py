"""Draft models on SGLang's FlashInfer backend in CUDA graphs: captured once, planned anew, run on static tensors.

Runs under TRITON_INTERPRET=1 (test_on_cpu.py starts it).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from sglang.srt.layers.attention.flashinfer_backend import FlashInferAttnBackend

from sglang_hetero_spec.cuda.graphs.draft_graphs import DraftGraphs
from sglang_hetero_spec.cuda.graphs.shapes import GraphShape
from sglang_hetero_spec.cuda.graphs.staging import Staging
from sglang_hetero_spec.pool import DrafterSpec
from tests.cuda.rerun import RerunRecorder
from tests.flashinfer_on_cpu.compiled import LOG
from tests.flashinfer_on_cpu.world import VOCAB, Drafting, World, close, write_model

SHAPES = (GraphShape("window", 2), GraphShape("window", 6), GraphShape("next", 1), GraphShape("tree", 9))
SIZES = (6, 3, 1)
BATCHES = [[40], [3, 40], [0, 5, 90, 31, 16, 64], [130, 2, 7, 9]]


@pytest.fixture(scope="module", params=[("gqa", 1), ("gqa", 16), ("window", 16)], ids=str)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    kind, page_size = request.param
    return World.make(write_model(kind, tmp_path_factory.mktemp("models")), page_size)


class Event:
    """Of a device that has done everything."""

    def record(self) -> None: ...

    def synchronize(self) -> None: ...


def captured(world: World, shapes: Sequence[GraphShape] = SHAPES, sizes: Sequence[int] = SIZES) -> DraftGraphs:
    if world.runner.sliding_window_size is not None:
        shapes = tuple(shape for shape in shapes if shape.kind == "next")  # as worker.graph_setup.shapes_of
    world.use(FlashInferAttnBackend)
    # A graph's forward must not reach for the backend that eager forwards use.
    world.runner._get_attention_backend = lambda: FlashInferAttnBackend(world.runner)
    graphs = DraftGraphs(world.runner, shapes, max(sizes), VOCAB, RerunRecorder, staging=Staging(Event))
    for size in sizes:
        for each in graphs.by_shape.values():
            each.capture(size)
    return graphs


@pytest.fixture(scope="module")
def graphs(world: World) -> DraftGraphs:
    return captured(world)


def drafting_in(graphs: DraftGraphs, world: World, lens: list[int], monkeypatch: pytest.MonkeyPatch) -> Drafting:
    drafting = Drafting(world, lens)
    drafting.model.graphs = graphs
    drafting.model.catch_up(drafting.batch(), 1)
    world.clear_slot_zero()

    def eager(*args: object) -> None:
        raise AssertionError("no graph held this batch")

    if world.runner.sliding_window_size is None:
        monkeypatch.setattr(drafting.model, "_forward", eager)
    return drafting


@pytest.mark.parametrize("lens", BATCHES, ids=str)
@pytest.mark.parametrize("window", [1, 4])
def test_a_chain(
    world: World, graphs: DraftGraphs, lens: list[int], window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafting = drafting_in(graphs, world, lens, monkeypatch)
    batch = drafting.batch(newcomers=False)
    logits = drafting.model.read_window(batch, window)
    drafting.check_chain(batch, logits, 4)


@pytest.mark.parametrize("lens", BATCHES, ids=str)
@pytest.mark.parametrize("width", [1, 9])
def test_a_tree(
    world: World, graphs: DraftGraphs, lens: list[int], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if world.runner.sliding_window_size is not None:
        pytest.skip("SGLang's verification with a window reads the wrong end of the context (attn_backend.py)")
    drafting = drafting_in(graphs, world, lens, monkeypatch)
    batch = drafting.batch(newcomers=False)
    drafting.model.read_window(batch, 2)
    drafting.check_tree(batch, width)


def test_batches_of_all_sizes_one_after_the_other(
    world: World, graphs: DraftGraphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a larger batch left behind in the static tensors is nobody's."""
    for lens in ([130, 2, 7, 9, 11, 30], [5], [40, 3], [90, 1, 2, 3], [7]):
        drafting = drafting_in(graphs, world, lens, monkeypatch)
        batch = drafting.batch(newcomers=False)
        logits = drafting.model.read_window(batch, 2)
        close(logits, drafting.expected([[] for _ in lens]))
        drawn = logits.argmax(-1)
        close(drafting.model.read_next(batch, drawn, 1), drafting.expected([[token] for token in drawn.tolist()]))
        monkeypatch.undo()


def test_with_and_without_graphs_in_turn(world: World, graphs: DraftGraphs) -> None:
    """Both plan with the same backend."""
    drafting = Drafting(world, [40, 3, 17])
    drafting.model.catch_up(drafting.batch(), 1)
    batch = drafting.batch(newcomers=False)
    tails: list[list[int]] = [[], [], []]
    logits = drafting.model.read_window(batch, 2)
    for offset in range(1, 6):
        drawn = logits.argmax(-1)
        for tail, token in zip(tails, drawn.tolist(), strict=True):
            tail.append(token)
        drafting.model.graphs = graphs if offset % 2 else None
        logits = drafting.model.read_next(batch, drawn, offset)
        close(logits, drafting.expected(tails))


def test_no_plan_is_written_over_one_that_the_device_has_still_to_fetch(
    world: World, graphs: DraftGraphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan lies in pinned memory until the device has copied it, and the host does not wait between two tokens."""
    drafting = drafting_in(graphs, world, [40, 3, 17], monkeypatch)
    batch = drafting.batch(newcomers=False)
    LOG.clear()
    drawn = drafting.model.read_window(batch, 2).argmax(-1)
    for offset in range(1, 6):
        drawn = drafting.model.read_next(batch, drawn, offset).argmax(-1)
    assert LOG.overwritten == 0


def test_which_shapes_a_model_with_a_sliding_window_has(world: World) -> None:
    from sglang_hetero_spec.worker.graph_setup import shapes_of

    spec = DrafterSpec("d", "standalone", None, "shared", 4, 1, 5)
    models: Any = SimpleNamespace(
        pool=SimpleNamespace(drafters=[spec], merged_draft_tokens=None),
        by_name={"d": SimpleNamespace(runner=world.runner)},
        has_own_sequences=lambda name: False,
    )
    kinds = {shape.kind for shape in shapes_of(models, "d")}
    assert kinds == ({"next", "window"} if world.runner.sliding_window_size is None else {"next"})
