"""Draft forwards replayed from static inputs give what the live batch would: every input goes through, padding shows
nowhere, and each batch size finds the smallest graph that holds it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_hetero_spec.cuda.graphs.shapes import GraphShape
from tests.cuda.rerun import RerunRecorder

pytestmark = pytest.mark.usefixtures("sglang")

VOCAB, LARGEST = 7, 8
WINDOW, NEXT, TREE = GraphShape("window", 2), GraphShape("next", 1), GraphShape("tree", 3)


class Backend:
    """An attention backend that notes what it plans with; its plan is the lengths by request."""

    forward_metadata: Any = None

    def __init__(self) -> None:
        self.planned: list[Any] = []
        self.room: tuple[int, int] | None = None

    def init_cuda_graph_state(self, max_bs: int, max_num_tokens: int) -> None:
        assert self.room is None, "made once"
        self.room = max_bs, max_num_tokens

    def get_cuda_graph_seq_len_fill_value(self) -> int:
        return 1

    def init_forward_metadata_out_graph(self, batch: Any, in_capture: bool = False) -> None:
        self.planned.append(batch)

    def init_forward_metadata_in_graph(self, batch: Any) -> None:
        pass


class Model:
    """Logits that depend on every input of a token, and on nothing of other requests."""

    calls = 0

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor, batch: Any) -> SimpleNamespace:
        self.calls += 1
        width = len(tokens) // batch.batch_size
        value = tokens + 10 * positions + 100 * batch.out_cache_loc
        value = value + (1000 * batch.req_pool_indices + 10000 * batch.seq_lens).repeat_interleave(width)
        if batch.forward_mode.is_draft_extend_v2():
            value = value[batch.spec_info.select_index]
        batch.next_token_logits_buffer.copy_(value.unsqueeze(1) + torch.arange(VOCAB))
        return SimpleNamespace(next_token_logits=batch.next_token_logits_buffer)


@pytest.fixture
def runner() -> SimpleNamespace:
    from contextlib import nullcontext

    return SimpleNamespace(
        device="cpu",
        attn_backend=Backend(),
        model=Model(),
        spec_algorithm=None,
        kv_index_translator=SimpleNamespace(bind_runner_slots=lambda batch: None),
        eager_runner=SimpleNamespace(model_context=nullcontext),
        _get_attention_backend=Backend,
    )


def made(runner: SimpleNamespace, *shapes: GraphShape) -> Any:
    from sglang_hetero_spec.cuda.graphs.draft_graphs import DraftGraphs

    graphs = DraftGraphs(runner, shapes, LARGEST, VOCAB, RerunRecorder)
    for shape in graphs.by_shape.values():
        for size in (8, 1, 3):
            shape.capture(size)
    return graphs


def live(shape: GraphShape, number: int, seed: int = 0) -> Any:
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch

    from sglang_hetero_spec.cuda.graphs.static_batch import MODES
    from sglang_hetero_spec.worker.draft_model import _window_input
    from sglang_hetero_spec.worker.verify_input import irregular_tree_input

    random = torch.Generator().manual_seed(seed)

    def draw(size: int) -> torch.Tensor:
        return torch.randint(1, 10, (size,), generator=random)

    lens = draw(number) + 5
    tokens = draw(number * shape.width)
    batch = ForwardBatch(
        forward_mode=MODES[shape.kind],
        batch_size=number,
        input_ids=tokens,
        req_pool_indices=draw(number),
        seq_lens=lens,
        seq_lens_cpu=lens.clone(),
        seq_lens_sum=int(lens.sum()),
        out_cache_loc=draw(number * shape.width),
        positions=draw(number * shape.width),
    )
    if shape.kind == "window":
        batch.spec_info = _window_input(draw(number) % shape.width, shape.width)
    if shape.kind == "tree":
        batch.spec_info = irregular_tree_input(tokens, torch.ones(1, dtype=torch.bool), shape.width, lens)
    return batch


def expected(batch: Any, rows: int) -> torch.Tensor:
    batch.next_token_logits_buffer = torch.zeros(rows, VOCAB)
    return Model().forward(batch.input_ids, batch.positions, batch).next_token_logits


@pytest.mark.parametrize("shape", [WINDOW, NEXT, TREE], ids=lambda shape: shape.kind)
def test_every_batch_size_gives_what_the_live_batch_would(runner, shape: GraphShape) -> None:
    graphs = made(runner, shape)
    # From large to small and back: what a former batch left in the static inputs must not show.
    for seed, number in enumerate([8, 2, 5, 1, 3, 8, 4, 1]):
        batch = live(shape, number, seed)
        logits = graphs.run(batch, None)
        rows = number * (shape.width if shape.kind == "tree" else 1)
        assert torch.equal(logits, expected(batch, rows))


@pytest.mark.parametrize("shape", [WINDOW, NEXT, TREE], ids=lambda shape: shape.kind)
def test_who_is_not_there_writes_into_nobodys_slot(runner, shape: GraphShape) -> None:
    graphs = made(runner, shape)
    graphs.run(live(shape, 8), None)
    graphs.run(live(shape, 4), None)
    planned = runner.attn_backend.planned[-1]
    assert planned.batch_size == 8
    assert not planned.out_cache_loc[4 * shape.width :].any() and not planned.req_pool_indices[4:].any()
    fill = 2 if shape.kind == "window" else 1
    assert (planned.seq_lens[4:] == fill).all() and (planned.seq_lens_cpu[4:] == fill).all()
    assert planned.seq_lens_sum == int(planned.seq_lens.sum()) == int(planned.seq_lens_cpu.sum())


def test_the_smallest_graph_that_holds_a_batch_is_taken(runner) -> None:
    graphs = made(runner, NEXT)
    sizes = []
    for number in range(1, LARGEST + 1):
        graphs.run(live(NEXT, number), None)
        sizes.append(runner.attn_backend.planned[-1].batch_size)
    assert sizes == [1, 3, 3, 8, 8, 8, 8, 8]


@pytest.mark.parametrize("shape", [WINDOW, NEXT, TREE], ids=lambda shape: shape.kind)
def test_captured_again_nobody_of_the_last_batch_is_there(runner, shape: GraphShape) -> None:
    graphs = made(runner, shape)
    graphs.run(live(shape, 8), None)
    runner.attn_backend.planned.clear()
    graphs.recapture(None)
    assert [batch.batch_size for batch in runner.attn_backend.planned] == [8, 3, 1]
    for planned in runner.attn_backend.planned:
        assert planned.seq_lens_sum == int(planned.seq_lens.sum()) == int(planned.seq_lens_cpu.sum())
        assert not planned.out_cache_loc.any() and not planned.req_pool_indices.any()
    batch = live(shape, 3, seed=1)
    assert torch.equal(graphs.run(batch, None), expected(batch, 3 * (shape.width if shape.kind == "tree" else 1)))


def test_what_no_graph_holds_is_not_run(runner) -> None:
    graphs = made(runner, NEXT)
    assert graphs.run(live(NEXT, LARGEST + 1), None) is None
    assert graphs.run(live(WINDOW, 2), None) is None
    graphs.forget()
    assert graphs.run(live(NEXT, 1), None) is None


def test_a_window_is_widened_to_one_that_was_captured(runner) -> None:
    graphs = made(runner, WINDOW, GraphShape("window", 5))
    assert [graphs.width_for("window", width, 4) for width in (1, 2, 3, 5, 6)] == [2, 2, 5, 5, 6]
    assert graphs.width_for("window", 3, LARGEST + 1) == 3, "no graph holds so many"


def test_a_further_width_has_a_backend_to_itself(runner) -> None:
    graphs = made(runner, WINDOW, NEXT, GraphShape("window", 5))
    first, _, wide = graphs.by_shape.values()
    graphs.run(live(GraphShape("window", 5), 2), None)
    assert runner.attn_backend.room == (LARGEST, LARGEST + 1)
    assert all(len(batch.input_ids) == 2 * batch.batch_size for batch in runner.attn_backend.planned if batch.spec_info)
    assert first.sizes == wide.sizes == (1, 3, 8)


def test_without_lengths_on_the_host_the_plan_has_none(runner) -> None:
    graphs = made(runner, NEXT)
    batch = live(NEXT, 2)
    batch.seq_lens_cpu = batch.seq_lens_sum = None
    graphs.run(batch, None)
    assert runner.attn_backend.planned[-1].seq_lens_cpu is None
    assert runner.attn_backend.planned[-1].seq_lens_sum is None


class Event:
    """torch.cuda.Event of copies that a test finishes."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def record(self) -> None:
        self.log.append("recorded")

    def synchronize(self) -> None:
        self.log.append("waited for")


def test_a_plan_is_not_staged_where_one_may_still_be_copied_from() -> None:
    from sglang_hetero_spec.cuda.graphs.staging import Staging

    events: list[Event] = []

    def make_event() -> Event:
        events.append(Event())
        return events[-1]

    staging = Staging(make_event, num_pieces=3)
    wrapper = SimpleNamespace(_pin_memory_int_workspace_buffer=torch.zeros(4))
    lent = []
    for _ in range(5):
        with staging.lent_to([wrapper]):
            lent.append(wrapper._pin_memory_int_workspace_buffer.data_ptr())
    assert len(set(lent)) == 3 and lent[3:] == lent[:2]
    waited = ["recorded", "waited for", "recorded"]
    assert [event.log for event in events] == [waited, waited, ["recorded"]]


def test_two_kinds_of_layers_have_a_piece_each() -> None:
    from sglang_hetero_spec.cuda.graphs.staging import Staging

    wrappers = [SimpleNamespace(_pin_memory_int_workspace_buffer=torch.zeros(4)) for _ in range(2)]
    with Staging(Event).lent_to(wrappers):
        first, second = (wrapper._pin_memory_int_workspace_buffer.data_ptr() for wrapper in wrappers)
    assert first != second


def test_each_shape_stages_the_plans_of_its_own_wrappers(runner) -> None:
    from sglang_hetero_spec.cuda.graphs.draft_graphs import DraftGraphs
    from sglang_hetero_spec.cuda.graphs.staging import Staging

    names = ("decode_cuda_graph_metadata", "draft_extend_cuda_graph_metadata", "prefill_cuda_graph_metadata")
    for name in names:
        wrapper = SimpleNamespace(_pin_memory_int_workspace_buffer=torch.zeros(4))
        setattr(runner.attn_backend, name, {LARGEST: [wrapper]})
    graphs = DraftGraphs(runner, [NEXT, WINDOW, TREE], LARGEST, VOCAB, RerunRecorder, staging=Staging(Event))
    for shape, name in zip((NEXT, WINDOW, TREE), names, strict=True):
        graphs.by_shape[shape].capture(LARGEST)
        (wrapper,) = getattr(runner.attn_backend, name)[LARGEST]
        before = wrapper._pin_memory_int_workspace_buffer
        graphs.run(live(shape, 2), None)
        assert wrapper._pin_memory_int_workspace_buffer is not before


class Adapters:
    """worker.lora.ServedAdapters, whose static masks note what is loaded into them."""

    def __init__(self) -> None:
        self.loaded: list[tuple[str | None, int]] = []

    def nobody(self, number: int) -> Adapters:
        return self

    def first(self, number: int) -> Adapters:
        return self

    def load(self, work: str | None, number: int) -> None:
        self.loaded.append((work, number))

    def during(self, work: Any) -> Any:
        return torch.no_grad()


def test_masks_are_loaded_where_the_batchs_adapters_have_changed(runner) -> None:
    from sglang_hetero_spec.cuda.graphs.draft_graphs import DraftGraphs

    adapters = Adapters()
    graphs = DraftGraphs(runner, [NEXT], LARGEST, VOCAB, RerunRecorder, adapters)
    graphs.by_shape[NEXT].capture(LARGEST)
    for work in (None, "a", "a", "b", "b", None, None, "b"):
        graphs.run(live(NEXT, 2), work)
    assert adapters.loaded == [("a", 2), ("b", 2), (None, 2), ("b", 2)]
    graphs.recapture(adapters)
    graphs.run(live(NEXT, 2), "b")
    assert adapters.loaded[4:] == [("b", 2)], "its masks are new, nobody's"
