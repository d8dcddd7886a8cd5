"""Training of the demo's target on prompts with reference answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sglang_hetero_spec.demo.train.batches import Row, pad
from sglang_hetero_spec.demo.train.model import TinyLlama

# A little loss on prompts teaches the model to copy and to know the words; answers are what counts.
PROMPT_WEIGHT = 0.1


def loss(model: TinyLlama, rows: Sequence[Row], bf16: bool) -> Tensor:
    """Cross entropy per answer token, plus a little of the prompts'."""
    ids, predicts = pad(rows)
    labels = ids[:, 1:]
    weight = torch.where(predicts[:, :-1], 1.0, PROMPT_WEIGHT) * (labels != 0)
    keep = weight.flatten().nonzero().squeeze(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        hidden = model.hidden(ids[:, :-1]).flatten(0, 1)[keep]
        logits = model.logits(hidden)
    each = F.cross_entropy(logits.float(), labels.flatten()[keep], reduction="none")
    chosen = weight.flatten()[keep]
    return (each * chosen).sum() / chosen.sum()
