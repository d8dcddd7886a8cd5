"""Committed tokens for drafters that work on the host."""

from __future__ import annotations

import torch

from sglang_hetero_spec.cuda.transfer import from_host, kept_on_device
from sglang_hetero_spec.drafters.sequences import Fed
from sglang_hetero_spec.worker.history import TokenHistory


class CommittedTokens:
    """drafters.sequences.Committed."""

    def attach(self, history: TokenHistory) -> None:
        """Called once the pools exist."""
        self._history = history

    def behind(
        self, rows: torch.Tensor, seq_lens: torch.Tensor, starts: list[int], usual: int, fed: Fed | None = None
    ) -> list[list[int]]:
        back = kept_on_device(range(usual - 1, -1, -1), seq_lens.device)
        last = self._history.read(rows.unsqueeze(1), (seq_lens.unsqueeze(1) - back).clamp(min=0))
        packed = _to_host(torch.cat((seq_lens.unsqueeze(1), last), dim=1), fed)
        ends = [row[0] + 1 for row in packed]
        new = [
            row[1:][-(end - start) :] if end > start else []
            for row, start, end in zip(packed, starts, ends, strict=True)
        ]
        long = [i for i, (start, end) in enumerate(zip(starts, ends, strict=True)) if end - start > usual]
        if long:
            whole = self._history.read_ranges(
                rows[from_host(long, rows.device)], [starts[i] for i in long], [ends[i] for i in long]
            )
            for i, tokens in zip(long, whole, strict=True):
                new[i] = tokens
        return new


def _to_host(numbers: torch.Tensor, fed: Fed | None) -> list[list[int]]:
    """numbers: [b, n]. With them, in the same copy, what was fed."""
    if fed is None:
        return numbers.tolist()
    flat = torch.cat((numbers.flatten(), fed.tokens.flatten())).tolist()
    fed.arrive(flat[numbers.numel() :])
    width = numbers.shape[1]
    return [flat[i : i + width] for i in range(0, numbers.numel(), width)]
