"""Drafters learn the target's distribution on the target's own answers: forward KL, answer positions only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sglang_hetero_spec.demo.train.batches import pad
from sglang_hetero_spec.demo.train.generate import Answered
from sglang_hetero_spec.demo.train.model import TinyLlama


def loss(student: TinyLlama, head: Tensor, items: Sequence[Answered], bf16: bool) -> Tensor:
    """Mean cross entropy to the target's distribution. `head` [V, target hidden] is the target's output matrix."""
    ids, predicts = pad([item.row for item in items])
    with torch.no_grad():
        states = torch.cat([item.hidden for item in items])
        teacher = F.linear(states, head.bfloat16()).float().softmax(-1)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = student.logits(student.hidden(ids)[predicts])
    return -(teacher * logits.float().log_softmax(-1)).sum(-1).mean()
