"""What travels between two verify steps of a batch: the last committed token, nothing that knows a drafter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode
from sglang.srt.speculative.spec_info import SpecInput, SpecInputType


@dataclass
class HeteroDraftInput(SpecInput):
    """bonus_tokens: [b]. Under overlap scheduling they pass through SGLang's FutureMap under `future_indices`.

    The fields that are always None are read by SGLang from whatever draft input a batch carries
    (managers/overlap_utils.py, RelayPayload.from_draft_input).
    """

    bonus_tokens: torch.Tensor | None = None
    future_indices: torch.Tensor | None = None
    topk_p: torch.Tensor | None = None
    topk_index: torch.Tensor | None = None
    hidden_states: torch.Tensor | None = None
    draft_probs: torch.Tensor | None = None
    capture_hidden_mode: CaptureHiddenMode = CaptureHiddenMode.NULL

    def __post_init__(self) -> None:
        super().__init__(SpecInputType.EAGLE_DRAFT)

    def filter_batch(self, new_indices: torch.Tensor, new_indices_cpu: list[int] | None = None) -> None:
        if self.future_indices is not None:
            self.future_indices = self.future_indices[new_indices]
        else:
            self.bonus_tokens = self.bonus_tokens[new_indices]

    def merge_batch(self, other: Any) -> None:
        if self.future_indices is not None:
            self.future_indices = torch.cat((self.future_indices, other.future_indices))
        else:
            self.bonus_tokens = torch.cat((self.bonus_tokens, other.bonus_tokens))
