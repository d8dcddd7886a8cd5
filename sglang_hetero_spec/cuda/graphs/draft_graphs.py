"""CUDA graphs of one draft model's forwards: one more token, a window of committed tokens, nodes of a tree.

A draft model is small, so that launching its kernels one by one takes the host longer than the device needs for them;
a graph launches them at once. What plans attention for a batch (lengths, page indices, masks) runs before each replay,
by SGLang's contract with its attention backends (base_attn_backend.py, `init_forward_metadata_out_graph`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from sglang.srt.model_executor.forward_context import ForwardContext, forward_context

from sglang_hetero_spec.cuda.graphs.ladder import GraphCost
from sglang_hetero_spec.cuda.graphs.recorder import Recorder
from sglang_hetero_spec.cuda.graphs.shapes import GraphShape, Kind
from sglang_hetero_spec.cuda.graphs.staging import Staging
from sglang_hetero_spec.cuda.graphs.static_batch import KINDS, StaticBatch

if TYPE_CHECKING:
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch
    from sglang.srt.model_executor.model_runner import ModelRunner

    from sglang_hetero_spec.worker.lora import AtWork, ServedAdapters

# Where SGLang's FlashInfer backend keeps the wrappers of its graphs, by batch size.
_WRAPPERS = {
    "next": "decode_cuda_graph_metadata",
    "window": "draft_extend_cuda_graph_metadata",
    "tree": "prefill_cuda_graph_metadata",
}


class ShapeGraphs:
    """The captured batch sizes of one shape. logits: float32, at least [largest * rows per request, m], where the
    graphs leave their logits."""

    def __init__(
        self,
        runner: ModelRunner,
        shape: GraphShape,
        largest: int,
        backend: Any,
        recorder: Recorder,
        logits: torch.Tensor,
        adapters: ServedAdapters | None,
        staging: Staging | None,
    ) -> None:
        self.shape = shape
        self.sizes: tuple[int, ...] = ()
        self.last_cost = GraphCost(0, 0.0)
        self._runner, self._backend, self._recorder, self._logits = runner, backend, recorder, logits
        self._largest, self._staging = largest, staging
        self._static = StaticBatch(shape, largest, backend.get_cuda_graph_seq_len_fill_value(), runner.device)
        self._planned: dict[int, ForwardBatch] = {}
        self._take(adapters)

    def _take(self, adapters: ServedAdapters | None) -> None:
        self._adapters = adapters
        self._at_work = None if adapters is None else adapters.nobody(self._largest)
        self._loaded: AtWork | None = None  # whose masks `_at_work` has, None: nobody's

    def capture(self, size: int) -> None:
        planned = self._static.forward_batch(size)
        planned.spec_algorithm = self._runner.spec_algorithm
        planned.next_token_logits_buffer = self._logits[: size * self._logit_rows]
        self._runner.kv_index_translator.bind_runner_slots(planned)
        with forward_context(ForwardContext(attn_backend=self._backend), forward_batch=planned):
            self._backend.init_forward_metadata_out_graph(planned, in_capture=True)
            after_warm_up = getattr(self._backend, "on_after_cuda_graph_warmup", None)
            self._recorder.capture(size, self._forward_of(planned), after_warm_up)
        self._planned[size] = planned
        self.sizes = tuple(sorted((*self.sizes, size)))

    @property
    def _logit_rows(self) -> int:
        """Of each request."""
        return self.shape.width if self.shape.kind == "tree" else 1

    def _forward_of(self, planned: ForwardBatch) -> Callable[[], torch.Tensor]:
        runner, backend = self._runner, self._backend

        def forward() -> torch.Tensor:
            with (
                torch.no_grad(),
                runner.eager_runner.model_context(),
                forward_context(ForwardContext(attn_backend=backend), forward_batch=planned),
                self._during(planned.batch_size),
            ):
                backend.init_forward_metadata_in_graph(planned)
                output = runner.model.forward(planned.input_ids, planned.positions, planned)
            return output.next_token_logits

        return forward

    def _during(self, size: int) -> AbstractContextManager[None]:
        if self._adapters is None or self._at_work is None:
            return nullcontext()
        return self._adapters.during(self._at_work.first(size))

    def forget(self) -> None:
        """The last batch too: a capture plans for nobody's requests, and runs."""
        self.sizes = ()
        self._static.clear()
        self._recorder.clear()
        self._planned.clear()

    def recapture(self, adapters: ServedAdapters | None) -> None:
        """After adapters have come or gone: their weights lie elsewhere now."""
        sizes = self.sizes
        self.forget()
        self._take(adapters)
        for size in sorted(sizes, reverse=True):
            self.capture(size)

    def holds(self, number: int) -> bool:
        return bool(self.sizes) and number <= self.sizes[-1]

    def run(self, live: ForwardBatch, work: AtWork | None) -> torch.Tensor:
        """Logits [b * rows per request, m], until the next forward of this model. work: the batch's adapters."""
        size = next(size for size in self.sizes if size >= live.batch_size)
        planned = self._planned[size]
        self._static.load(live, planned)
        if self._at_work is not None and work is not self._loaded:
            self._at_work.load(work, live.batch_size)
            self._loaded = work
        with (
            forward_context(ForwardContext(attn_backend=self._backend), forward_batch=planned),
            self._staged(size),
        ):
            self._backend.init_forward_metadata_out_graph(planned)
        return self._recorder.replay(size)[: live.batch_size * self._logit_rows]

    def _staged(self, size: int) -> AbstractContextManager[None]:
        if self._staging is None:
            return nullcontext()
        return self._staging.lent_to(getattr(self._backend, _WRAPPERS[self.shape.kind])[size])


class DraftGraphs:
    """All shapes of one draft model. make_recorder: for each shape, given its attention backend."""

    def __init__(
        self,
        runner: ModelRunner,
        shapes: Sequence[GraphShape],
        largest: int,
        num_logits: int,
        make_recorder: Callable[[Any], Recorder],
        adapters: ServedAdapters | None = None,
        staging: Staging | None = None,
    ) -> None:
        """num_logits: columns of the model's logits. staging: None where plans wait for the device by themselves."""
        self.largest = largest
        rows = max(shape.width if shape.kind == "tree" else 1 for shape in shapes) * largest
        logits = torch.zeros(rows, num_logits, dtype=torch.float32, device=runner.device)
        backends = _backends(runner, shapes, largest)
        self.by_shape = {
            shape: ShapeGraphs(runner, shape, largest, backend, make_recorder(backend), logits, adapters, staging)
            for shape, backend in zip(shapes, backends, strict=True)
        }

    def width_for(self, kind: Kind, width: int, number: int) -> int:
        """The smallest captured width of at least `width` tokens for `number` requests, or `width` itself."""
        captured = [
            shape.width
            for shape, graphs in self.by_shape.items()
            if shape.kind == kind and shape.width >= width and graphs.holds(number)
        ]
        return min(captured, default=width)

    def run(self, live: ForwardBatch, work: AtWork | None) -> torch.Tensor | None:
        """None where no graph holds the batch."""
        shape = GraphShape(KINDS[live.forward_mode], live.input_ids.shape[0] // live.batch_size)
        graphs = self.by_shape.get(shape)
        return graphs.run(live, work) if graphs is not None and graphs.holds(live.batch_size) else None

    def forget(self) -> None:
        for graphs in self.by_shape.values():
            graphs.forget()

    def recapture(self, adapters: ServedAdapters | None) -> None:
        for graphs in self.by_shape.values():
            graphs.recapture(adapters)


def _backends(runner: ModelRunner, shapes: Sequence[GraphShape], largest: int) -> list[Any]:
    """An attention backend keeps the plans of its graphs by mode and batch size, so the runner's own serves the first
    width of each mode, and every further width has a backend to itself."""
    first = {shape.kind: shape for shape in reversed(shapes)}
    _make_room(runner.attn_backend, largest, list(first.values()))
    backends = []
    for shape in shapes:
        if first[shape.kind] == shape:
            backends.append(runner.attn_backend)
        else:
            backends.append(runner._get_attention_backend())
            _make_room(backends[-1], largest, [shape])
    return backends


def _make_room(backend: Any, largest: int, shapes: Sequence[GraphShape]) -> None:
    # FlashInfer takes page indices (int32) and mask bits (in bytes) for a whole context of each token that it is told
    # of. One context of each request is enough, and one for what proposals add to full ones; a tree of 8 nodes has a
    # byte of mask for each token of its context.
    widest_tree = max((shape.width for shape in shapes if shape.kind == "tree"), default=1)
    backend.init_cuda_graph_state(largest, (largest + 1) * -(-widest_tree // 8))
