"""Sorted fine-tuning: several depths of one model learn together, with one final norm and one output layer.

Source: SoFT of S2D (arXiv 2407.01955; github.com/parsareal/SD2, train_soft.py): the loss is the mean over the exits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sglang_hetero_spec.build.align.batches import AnswerHead
from sglang_hetero_spec.build.align.errors import AlignError
from sglang_hetero_spec.build.align.models import layer_list

_NORMS = ("norm", "final_layernorm", "ln_f")


class ExitHead(AnswerHead):
    """Scores the chosen positions at every exit, within the model's own forward.

    exits: layers of each sub-model, ascending, the last one the whole model. Logits are [exits * N, V], exit by exit.
    """

    def __init__(self, model: Any, exits: Sequence[int]) -> None:
        super().__init__(model)
        layers = layer_list(model)
        check_exits(exits, len(layers))
        self.num_exits = len(exits)
        self._norm = _final_norm(model)
        self._inner: list[Tensor] = []
        for layer in exits[:-1]:
            layers[layer - 1].register_forward_hook(self._take)

    def _take(self, _: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._keep is not None:
            hidden = output[0] if isinstance(output, tuple) else output
            self._inner.append(hidden.flatten(0, 1)[self._keep])

    def _select(self, head: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        chosen = super()._select(head, args)
        if chosen is None:
            return None
        inner, self._inner = self._inner, []
        if not self._scored:
            return chosen
        stacked = torch.cat((*(self._norm(hidden).unsqueeze(0) for hidden in inner), chosen[0]), dim=1)
        return stacked, *chosen[1:]


def check_exits(exits: Sequence[int], num_layers: int) -> None:
    """AlignError unless the last exit is the whole model."""
    if exits[-1] != num_layers:
        raise AlignError(
            f"`exits` is {list(exits)}, but the drafter has {num_layers} layers; the last exit is all of them."
        )


def _final_norm(model: Any) -> nn.Module:
    inner = model.get_decoder()
    for name in _NORMS:
        norm = getattr(inner, name, None)
        if isinstance(norm, nn.Module):
            return norm
    raise AlignError(
        f"The final norm of {type(model).__name__} was not found; train `exits` with a Llama, Mistral or Qwen2 model."
    )
