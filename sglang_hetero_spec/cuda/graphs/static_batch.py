"""The tensors that a captured draft forward reads, at addresses that stay: a live batch is copied into them.

One set for all batch sizes of a shape; a graph of b requests reads the first b. What is beyond the live requests are
requests of row 0 that write into slot 0, both nobody's in SGLang.
"""

from __future__ import annotations

import torch
from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode, ForwardBatch, ForwardMode
from sglang.srt.speculative.eagle_info import EagleDraftExtendInput

from sglang_hetero_spec.cuda.graphs.shapes import GraphShape, Kind
from sglang_hetero_spec.worker.verify_input import irregular_tree_input

MODES: dict[Kind, ForwardMode] = {
    "next": ForwardMode.DECODE,
    "window": ForwardMode.DRAFT_EXTEND_V2,
    "tree": ForwardMode.TARGET_VERIFY,
}
KINDS = {mode: kind for kind, mode in MODES.items()}


class StaticBatch:
    """Of up to `largest` requests. fill: the length of a request that is not there, as the attention backend wants."""

    def __init__(self, shape: GraphShape, largest: int, fill: int, device: torch.device | str) -> None:
        self.shape = shape
        self.fill = max(fill, shape.width) if shape.kind == "window" else fill
        num_tokens = largest * shape.width
        self._tokens, self._positions, self._slots = torch.zeros(3, num_tokens, dtype=torch.int64, device=device)
        self._rows = torch.zeros(largest, dtype=torch.int64, device=device)
        self._lens = torch.full((largest,), self.fill, dtype=torch.int64, device=device)
        self._host_lens = torch.full((largest,), self.fill, dtype=torch.int64)
        self._first_rows = torch.arange(0, num_tokens, shape.width, device=device)
        self._logit_rows = self._first_rows.clone()
        self._widths = torch.full((largest,), shape.width, dtype=torch.int32, device=device)

    def forward_batch(self, size: int) -> ForwardBatch:
        """Of the first `size` requests, to capture and to plan with."""
        width = self.shape.width
        batch = ForwardBatch(
            forward_mode=MODES[self.shape.kind],
            batch_size=size,
            input_ids=self._tokens[: size * width],
            req_pool_indices=self._rows[:size],
            seq_lens=self._lens[:size],
            out_cache_loc=self._slots[: size * width],
            seq_lens_sum=size * self.fill,
            seq_lens_cpu=self._host_lens[:size],
            orig_seq_lens=self._lens[:size],
            positions=self._positions[: size * width],
            spec_info=self._spec_info(size),
            capture_hidden_mode=CaptureHiddenMode.NULL,
        )
        if self.shape.kind == "window":
            batch.extend_num_tokens = size * width
            batch.extend_seq_lens_cpu = [width] * size
            batch.extend_seq_lens = self._widths[:size]
            batch.extend_start_loc = self._first_rows[:size].to(torch.int32)
        return batch

    def _spec_info(self, size: int) -> object:
        width = self.shape.width
        if self.shape.kind == "window":
            return EagleDraftExtendInput(
                num_correct_drafts=self._logit_rows[:size],  # FlashInfer asks how many there are, for nothing else
                num_tokens_per_req=width,
                capture_hidden_mode=CaptureHiddenMode.NULL,
                select_index=self._logit_rows[:size],
            )
        if self.shape.kind == "tree":
            visible = torch.ones(size * width * (self.fill + width), dtype=torch.bool, device=self._tokens.device)
            return irregular_tree_input(self._tokens[: size * width], visible, width, self._host_lens[:size])
        return None

    def load(self, live: ForwardBatch, planned: ForwardBatch) -> None:
        """Copy the live requests, put nobody into the other places, and bring `planned` (of `forward_batch`) up to
        date where an attention backend reads the host."""
        number, size = live.batch_size, planned.batch_size
        num_tokens = number * self.shape.width
        into = [self._tokens[:num_tokens], self._positions[:num_tokens], self._slots[:num_tokens]]
        into += [self._rows[:number], self._lens[:number]]
        values = [live.input_ids, live.positions, live.out_cache_loc, live.req_pool_indices, live.seq_lens]
        if self.shape.kind == "window":
            into.append(self._logit_rows[:number])
            values.append(live.spec_info.select_index)
        torch._foreach_copy_(into, values)
        if number < size:
            self.clear(number, size)
        self._plan_with(live, planned)

    def clear(self, number: int = 0, size: int | None = None) -> None:
        """Nobody is there, from place `number` on."""
        size = len(self._rows) if size is None else size
        tokens = slice(number * self.shape.width, size * self.shape.width)
        nobody = slice(number, size)
        torch._foreach_zero_([self._tokens[tokens], self._positions[tokens], self._slots[tokens], self._rows[nobody]])
        self._lens[nobody].fill_(self.fill)
        self._host_lens[nobody].fill_(self.fill)
        self._logit_rows[nobody].copy_(self._first_rows[nobody])

    def _plan_with(self, live: ForwardBatch, planned: ForwardBatch) -> None:
        number, size = live.batch_size, planned.batch_size
        planned.seq_lens_cpu = None
        planned.seq_lens_sum = None
        if live.seq_lens_cpu is not None:
            self._host_lens[:number].copy_(live.seq_lens_cpu)
            planned.seq_lens_cpu = self._host_lens[:size]
            planned.seq_lens_sum = live.seq_lens_sum + (size - number) * self.fill
        if self.shape.kind == "tree":
            planned.spec_info = live.spec_info
