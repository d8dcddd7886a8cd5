"""The committed tokens of every request, on the device, so that any drafter can read any part of them later."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from sglang_hetero_spec.cuda.transfer import from_host, kept_on_device

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import ScheduleBatch

# What a verify step commits, or a few of them; prompts are more.
_STEP_TOKENS = 32


class TokenHistory:
    """tokens: [rows, max_len] int64; row r of SGLang's req_to_token table holds its request's tokens 0, 1, ...

    Everything up to and including the root of the next verify step is right; what lies behind it is not read.
    """

    def __init__(self, num_rows: int, max_len: int, device: torch.device | str) -> None:
        self.tokens = torch.zeros((num_rows, max_len), dtype=torch.int64, device=device)
        self._owners: list[int | None] = [None] * num_rows
        self._lens = [0] * num_rows

    @property
    def max_len(self) -> int:
        return self.tokens.shape[1]

    def record_prefill(self, batch: ScheduleBatch, owners: list[int]) -> None:
        """Take the prompt tokens that `batch` computes, and those that the prefix cache spared it.

        owners: one number per request, never used for another request, so that a row that was handed on is seen.
        """
        rows, positions = prefill_places(batch, self.tokens.device)
        self.tokens[rows, positions] = batch.input_ids.to(torch.int64)
        for req, row, owner, prefix_len, extend_len in zip(
            batch.reqs,
            batch.req_pool_indices_cpu.tolist(),
            owners,
            batch.prefix_lens,
            batch.extend_lens,
            strict=True,
        ):
            if self._owners[row] != owner or self._lens[row] < prefix_len:
                known = torch.tensor(req.full_untruncated_fill_ids[:prefix_len], dtype=torch.int64)
                self.tokens[row, :prefix_len] = from_host(known, self.tokens.device)
            self._owners[row] = owner
            self._lens[row] = prefix_len + extend_len

    def record_roots(self, rows: torch.Tensor, seq_lens: torch.Tensor, root_tokens: torch.Tensor) -> None:
        """rows, seq_lens, root_tokens: [b]. The root of the coming verify step is token `seq_lens`."""
        self.tokens[rows, seq_lens.clamp(max=self.max_len - 1)] = root_tokens

    def record_commit(self, rows: torch.Tensor, seq_lens: torch.Tensor, accept_tokens: torch.Tensor) -> None:
        """accept_tokens: [b, D] int64, the bonus token last among the accepted, anything behind it."""
        width = accept_tokens.shape[1]
        positions = seq_lens.unsqueeze(1) + kept_on_device(range(1, width + 1), seq_lens.device)
        positions = positions.clamp(max=self.max_len - 1)
        self.tokens[rows.unsqueeze(1), positions] = accept_tokens

    def read(self, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """rows [n] with positions [n], or rows [b, 1] with positions [b, w]."""
        return self.tokens[rows, positions.clamp(max=self.max_len - 1)]

    def read_ranges(self, rows: torch.Tensor, starts: Sequence[int], ends: Sequence[int]) -> list[list[int]]:
        """Tokens [start, end) of each row, on the host; none where end is not above start. rows: [b]."""
        lens = [max(0, end - start) for start, end in zip(starts, ends, strict=True)]
        width = max(lens)
        if width <= _STEP_TOKENS:
            positions = from_host(starts, rows.device).unsqueeze(1) + kept_on_device(range(width), rows.device)
            found = self.read(rows.unsqueeze(1), positions).tolist()
            return [tokens[:length] for tokens, length in zip(found, lens, strict=True)]
        parts = [self.tokens[row, start:end] for row, start, end in zip(rows.tolist(), starts, ends, strict=True)]
        together = iter(torch.cat(parts).tolist())
        return [list(itertools.islice(together, length)) for length in lens]


def prefill_places(batch: ScheduleBatch, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and position of each of the batch's new tokens, both [num_tokens] int64."""
    return ragged_places(batch.req_pool_indices, batch.prefix_lens, batch.extend_lens, device)


def ragged_places(
    rows: torch.Tensor, starts: list[int], lens: list[int], device: torch.device | str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Flat rows and positions of ragged ranges. rows: [b]; starts, lens: b numbers each; both [sum(lens)]."""
    lens_tensor = torch.tensor(lens, dtype=torch.int64)
    ends = lens_tensor.cumsum(0)
    offsets = torch.tensor(starts, dtype=torch.int64) - (ends - lens_tensor)
    total = int(ends[-1]) if lens else 0
    positions = torch.arange(total) + offsets.repeat_interleave(lens_tensor)
    members = torch.arange(len(lens)).repeat_interleave(lens_tensor)
    return rows.to(torch.int64)[from_host(members, rows.device)], from_host(positions, torch.device(device))
