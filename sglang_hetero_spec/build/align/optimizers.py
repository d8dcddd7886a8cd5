"""Muon for the matrices and AdamW for the rest, as one optimizer that Trainer and its schedule can hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class MuonAdamW(Optimizer):
    """torch.optim.Muon on hidden matrices; AdamW on embeddings, the head and everything that is not a matrix."""

    def __init__(self, model: nn.Module, lr: float, weight_decay: float) -> None:
        # Optimizer.__init__ is left out on purpose: groups and state live in the two parts.
        matrices, rest = _parted(model)
        self.defaults: dict[str, Any] = {"lr": lr}
        fused = all(parameter.device.type in ("cpu", "cuda") for parameter in rest)
        self.parts: list[Optimizer] = []
        if matrices:
            self.parts.append(
                torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            )
        if rest:
            self.parts.append(torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0, fused=fused))

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[Tensor, Any]:
        return {parameter: values for part in self.parts for parameter, values in part.state.items()}

    def step(self, closure: Callable[[], float] | None = None) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, saved in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(saved)


def adamw(model: nn.Module, lr: float, weight_decay: float) -> Optimizer:
    """Weight decay on matrices only."""
    matrices, rest = _parted(model)
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=(0.9, 0.98), fused=True)


def _parted(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    outer = {id(p) for m in (_embeddings(model)) for p in m.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.dim() == 2 and id(p) not in outer]
    return matrices, [p for p in trained if p.dim() != 2 or id(p) in outer]


def _embeddings(model: Any) -> list[nn.Module]:
    return [m for m in (model.get_input_embeddings(), model.get_output_embeddings()) if m is not None]
