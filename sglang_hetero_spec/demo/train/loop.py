"""The training loop of the target: Muon for matrices, AdamW for the rest, resumable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sglang_hetero_spec.demo.train.model import TinyLlama

SAVE_EVERY_S = 60.0


@dataclass(frozen=True)
class Rates:
    """Peak learning rates; both rise over the first 4% of the steps and fall to 2% of the peak by a cosine."""

    matrices: float
    rest: float


def _optimizers(model: TinyLlama, rates: Rates) -> list[torch.optim.Optimizer]:
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.dim() != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=rates.matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=rates.rest, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def _factor(step: int, total: int) -> float:
    warm = max(1, total // 25)
    if step < warm:
        return (step + 1) / warm
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def train(
    model: TinyLlama,
    steps: int,
    loss_of: Callable[[int], Tensor],
    rates: Rates,
    checkpoint: Path,
    report: Callable[[int, int, float, float], None],
) -> None:
    """Runs `loss_of(step)` for every step; starts again from `checkpoint` where one is left, and removes it at the end.

    `report(step, steps, loss, seconds left)` is called about every five seconds.
    """
    optimizers, start = _optimizers(model, rates), 0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        start = state["step"]
    peaks = [rates.matrices, rates.rest]
    began = told = saved_at = time.monotonic()
    mean = 0.0
    for step in range(start, steps):
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * _factor(step, steps)
            optimizer.zero_grad()
        loss = loss_of(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        value, now = loss.item(), time.monotonic()
        mean = value if step == start else 0.98 * mean + 0.02 * value
        if now - told > 5:
            report(step + 1, steps, mean, (now - began) / (step + 1 - start) * (steps - step - 1))
            told = now
        if now - saved_at > SAVE_EVERY_S:
            _save(model, optimizers, step + 1, checkpoint)
            saved_at = now
    report(steps, steps, mean, 0.0)
    checkpoint.unlink(missing_ok=True)


def _save(model: TinyLlama, optimizers: list[torch.optim.Optimizer], step: int, checkpoint: Path) -> None:
    state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step}
    part = checkpoint.with_suffix(".part")
    torch.save(state, part)
    part.replace(checkpoint)
