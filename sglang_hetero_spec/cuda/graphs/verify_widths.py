"""The target's verification captured at few widths instead of one, so that narrow trees are not padded to the widest.

SGLang captures one width, that of the widest tree. A further one takes an attention backend and a graph runner of
SGLang's own kind, which take the place of the target's for the verification of a step (as its adaptive speculation does
between steps: eagle_worker_v2.py, `apply_runtime_state`).

Off unless SGLANG_HETERO_SPEC_VERIFY_WIDTHS asks for more than one: what changes the target's forward stays SGLang's way
until it has been measured on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sglang.srt.runtime_context import get_exec, get_spec

from sglang_hetero_spec.cuda.graphs.ladder import MOST_SIZES, batch_sizes, widths

if TYPE_CHECKING:
    from sglang.srt.model_executor.model_runner import ModelRunner


@dataclass(frozen=True)
class Verification:
    """What verifies at one width. graphs: SGLang's DecodeCudaGraphRunner."""

    attn_backend: Any
    graphs: Any


class VerifyWidths:
    """by_width: the captured ones, the widest too."""

    def __init__(self, runner: ModelRunner, by_width: Mapping[int, Verification]) -> None:
        self._runner, self._by_width = runner, dict(sorted(by_width.items()))

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(self._by_width)

    def smallest(self, needed: int, batch_size: int) -> int:
        """The narrowest that `needed` nodes of each request fit into and that holds the batch, or the widest."""
        fitting = (
            width
            for width, verification in self._by_width.items()
            if width >= needed and batch_size <= verification.graphs.max_bs
        )
        return next(fitting, self.widths[-1])

    @contextmanager
    def at(self, width: int) -> Iterator[None]:
        """The target verifies at this width."""
        own = Verification(self._runner.attn_backend, self._runner.decode_cuda_graph_runner)
        self._install(self._by_width[width])
        try:
            yield
        finally:
            self._install(own)

    def _install(self, verification: Verification) -> None:
        self._runner.attn_backend = verification.attn_backend
        self._runner.decode_cuda_graph_runner = verification.graphs


def wanted_widths(proposed: Sequence[int], widest: int, number: int) -> tuple[int, ...]:
    """Below the widest, at most number - 1. proposed: nodes of each drafter's trees."""
    return tuple(width for width in widths([*proposed, widest], number) if width < widest)


def capture_widths(runner: ModelRunner, further: Sequence[int]) -> VerifyWidths:
    """After SGLang has captured the widest. further: widths below it."""
    from sglang.srt.model_executor.runner import DecodeCudaGraphRunner

    made = {get_spec().speculative_num_draft_tokens: Verification(runner.attn_backend, runner.decode_cuda_graph_runner)}
    decode = get_exec().graph.cuda_graph_config.decode
    all_sizes = decode.bs
    try:
        decode.bs = list(batch_sizes(max(all_sizes), MOST_SIZES))
        for width in sorted(further, reverse=True):
            with get_spec().override(speculative_num_draft_tokens=width):
                backend = runner._get_attention_backend(init_new_workspace=False)
                graphs = DecodeCudaGraphRunner(runner, attn_backend=backend, speculative_num_draft_tokens=width)
            made[width] = Verification(backend, graphs)
    finally:
        decode.bs = all_sizes
    return VerifyWidths(runner, made)
