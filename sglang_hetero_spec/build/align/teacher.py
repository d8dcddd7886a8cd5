"""The target's distribution at the answer positions of a batch: from the target itself, or from what was kept of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from sglang_hetero_spec.build.align.answers import Row
from sglang_hetero_spec.build.align.batches import AnswerHead, as_tensors, narrowed
from sglang_hetero_spec.build.align.cache import Shards
from sglang_hetero_spec.build.align.losses import append_rest, log_probs, with_rest


class Teacher(Protocol):
    """Knows the target's log-probabilities for a batch that its own `columns` are part of."""

    def columns(self, rows: Sequence[Row]) -> Mapping[str, Tensor]:
        """What a batch of these rows needs besides the ids, made where the batches are made."""
        ...

    def pair(self, student_logits: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Log-probabilities of drafter and target [N, M] over the same M outcomes, for `losses`."""
        ...


class FullTeacher(ABC):
    """Knows the log-probability of every token. `size`: how many both models have."""

    size: int

    @abstractmethod
    def log_probs(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The target's [N, size], without gradient."""

    def pair(self, student_logits: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return log_probs(student_logits, self.size), self.log_probs(batch)


@dataclass(frozen=True)
class LiveTeacher(FullTeacher):
    """Runs the target on every batch. head: scores the ids that both have."""

    model: Any
    head: AnswerHead
    size: int

    def columns(self, rows: Sequence[Row]) -> Mapping[str, Tensor]:
        said = as_tensors([row.by_target for row in rows])
        return {"said_ids": said["input_ids"], "said_keep": said["keep"]}

    @torch.no_grad()
    def log_probs(self, batch: Mapping[str, Tensor]) -> Tensor:
        return log_probs(self.head.logits(self.model, batch["said_ids"], batch["said_keep"]), self.size)


@dataclass(frozen=True)
class HiddenTeacher(FullTeacher):
    """Takes the target's last hidden states from disk; only its output layer is run. only: the ids that both have."""

    output_layer: Any
    shards: Shards
    size: int
    only: Tensor | None = None

    def columns(self, rows: Sequence[Row]) -> Mapping[str, Tensor]:
        return {"hidden": self.shards.read("hidden", [row.by_target for row in rows])}

    @torch.no_grad()
    def log_probs(self, batch: Mapping[str, Tensor]) -> Tensor:
        hidden = batch["hidden"].to(self.output_layer.weight.dtype)
        return log_probs(narrowed(self.output_layer(hidden), self.only), self.size)


@dataclass(frozen=True)
class TopKTeacher:
    """Takes the target's k likeliest tokens from disk; all others are one outcome."""

    shards: Shards
    size: int

    def columns(self, rows: Sequence[Row]) -> Mapping[str, Tensor]:
        said = [row.by_target for row in rows]
        return {"top_ids": self.shards.read("ids", said), "top_logp": self.shards.read("logp", said)}

    def pair(self, student_logits: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        student = log_probs(student_logits, self.size)
        return with_rest(student, batch["top_ids"].long()), append_rest(batch["top_logp"])


def is_plain_head(model: Any, head: AnswerHead, row: Row) -> bool:
    """Whether the model's logits are its output layer applied to the last hidden states, and nothing more."""
    device = next(model.parameters()).device
    batch = {name: value.to(device) for name, value in as_tensors([row]).items()}
    with torch.no_grad():
        logits = head.logits(model, batch["input_ids"], batch["keep"])
        rebuilt = model.get_output_embeddings()(head.hidden(model, batch["input_ids"], batch["keep"]))
    return torch.allclose(logits.float(), rebuilt.float(), rtol=1e-3, atol=1e-3)
