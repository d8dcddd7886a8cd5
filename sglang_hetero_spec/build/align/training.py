"""One training from its start, or from the last whole checkpoint, to the best weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from sglang_hetero_spec.build.align import checkpoints
from sglang_hetero_spec.build.align.curve import Curve
from sglang_hetero_spec.build.align.models import Device
from sglang_hetero_spec.build.align.settings import AlignSettings
from sglang_hetero_spec.build.align.trainer import AlignTrainer, Run

_MIN_RATE = 0.02


@dataclass(frozen=True)
class Trained:
    """steps: done (fewer than planned where it stopped early); best_step: whose weights the model has now."""

    steps: int
    best_step: int
    planned_steps: int
    tokens: int
    seconds: float


def evaluation_steps(steps: int, evaluations: int) -> frozenset[int]:
    """Evenly spaced, the last step included."""
    count = min(steps, evaluations)
    return frozenset(max(1, round(steps * (i + 1) / count)) for i in range(count))


def steps_of(num_batches: int, world: int, accumulation: int) -> int:
    """Optimizer steps: every process takes one batch at a time."""
    return max(1, math.ceil(math.ceil(num_batches / world) / accumulation))


def train(
    make_model: Callable[[], Any],
    run: Run,
    work: Path,
    curve_path: Path,
    settings: AlignSettings,
    device: Device,
    say: Callable[[str], None],
) -> tuple[Any, Trained]:
    """A trained model with its best weights; checkpoints in `work`.

    Called again after a kill, it goes on and ends with the same weights: `make_model` makes the same one each time.
    DivergedError where loss or gradient are not finite: the last good checkpoint stays.
    """
    with _deterministic():
        args = _arguments(run, work, settings, device)
        curve = Curve(curve_path, args.process_index == 0)
        trainer = AlignTrainer(make_model(), args, run, curve, say)
        if args.process_index == 0:
            checkpoints.remove_torn(work)
        trainer.accelerator.wait_for_everyone()
        last = checkpoints.latest(work)
        done = int(last.name.rpartition("-")[2]) if last else 0
        trainer.start_curve(done)
        if done < run.steps and not curve.is_over(run.patience):
            trainer.train(resume_from_checkpoint=str(last) if last else None)
        trainer.accelerator.wait_for_everyone()
        best, final = curve.best.step, curve.points[-1]
        if best == 0:
            say(f"{run.name}: training brought nothing on held-out answers; the weights stay as they were")
            model = make_model().to(trainer.accelerator.device)
        else:
            trainer.load_weights(checkpoints.path_of(work, best))
            model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        return model, Trained(final.step, best, run.steps, final.tokens, final.seconds)


def _arguments(run: Run, work: Path, settings: AlignSettings, device: Device) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=settings.gradient_accumulation,
        max_steps=run.steps,
        learning_rate=run.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": _MIN_RATE},
        warmup_steps=max(1, round(settings.warmup * run.steps)) if settings.warmup else 0,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        bf16=device.bf16,
        use_cpu=device.name == "cpu",
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        dataloader_pin_memory=device.name != "cpu",
        ddp_find_unused_parameters=False,
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )


@contextmanager
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
