"""Hugging Face's Trainer with our batches, losses, evaluation and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerControl, TrainerState

from sglang_hetero_spec.build.align import checkpoints
from sglang_hetero_spec.build.align.answers import Row
from sglang_hetero_spec.build.align.batches import AnswerHead, Collator, PlannedBatches
from sglang_hetero_spec.build.align.curve import Curve, Point
from sglang_hetero_spec.build.align.errors import AlignStopped, DivergedError
from sglang_hetero_spec.build.align.evaluate import Counts, as_row, measure
from sglang_hetero_spec.build.align.exits import ExitHead
from sglang_hetero_spec.build.align.losses import LOGIT_LOSSES, cross_entropy, forward_kl_of_logits, log_probs
from sglang_hetero_spec.build.align.optimizers import MuonAdamW, adamw
from sglang_hetero_spec.build.align.plan import Plan
from sglang_hetero_spec.build.align.teacher import FullTeacher, Teacher

_REPORT_EVERY_S = 5.0


@dataclass(frozen=True)
class Run:
    """One training: what it learns from and how. `evaluate_at`: steps, the last one included. only: ids that are scored
    (None for all). exits: of a sorted drafter."""

    name: str
    rows: Sequence[Row]
    plan: Plan
    dev: Sequence[Row]
    loss: str
    teacher: Teacher | None
    optimizer: str
    learning_rate: float
    weight_decay: float
    num_steps: int
    batch_tokens: int
    patience: int
    checkpoints_kept: int
    evaluate_at: frozenset[int]
    steps: int
    world: int
    only: Tensor | None = None
    exits: tuple[int, ...] = ()


class AlignTrainer(Trainer):
    """`curve` decides when to stop and which checkpoint is the best one."""

    def __init__(self, model: Any, args: TrainingArguments, run: Run, curve: Curve, say: Callable[[str], None]) -> None:
        self.run, self.curve = run, curve
        self.answer_head = ExitHead(model, run.exits) if run.exits else AnswerHead(model, run.only)
        self._loss_sum: float | None = None
        self._began, self._before = time.monotonic(), 0.0
        super().__init__(
            model=model,
            args=args,
            train_dataset=PlannedBatches(run.rows, run.plan.batches),
            data_collator=Collator(run.teacher),
            callbacks=[_Flow(run, say)],
        )
        self.remove_callback(PrinterCallback)
        # Ours is a mean over the answer positions of one batch.
        self.loss_is_scaled_for_ga = False

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            make = MuonAdamW if self.run.optimizer == "muon" else adamw
            self.optimizer = make(self.model, self.run.learning_rate, self.run.weight_decay)
        return self.optimizer

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        logits = self.answer_head.logits(model, inputs["input_ids"], inputs["keep"])
        parts = logits.chunk(self.answer_head.num_exits)
        if self.run.teacher is None:
            losses = [cross_entropy(part, inputs["tokens"]) for part in parts]
        else:
            losses = self._distances(parts, inputs, self.run.teacher)
        loss = torch.stack(losses).mean()
        self._refuse_non_finite(loss.detach(), "loss")
        return loss

    def _distances(self, parts: Sequence[Tensor], inputs: Mapping[str, Tensor], teacher: Teacher) -> list[Tensor]:
        """Of the logits at each exit; the target is asked once."""
        measure = LOGIT_LOSSES[self.run.loss]
        if not isinstance(teacher, FullTeacher):
            return [measure(*teacher.pair(logits, inputs)) for logits in parts]
        wanted = teacher.log_probs(inputs)
        if self.run.loss == "forward_kl":
            return [forward_kl_of_logits(logits, wanted) for logits in parts]
        return [measure(log_probs(logits, teacher.size), wanted) for logits in parts]

    def _clip_grad_norm(self, model: Any) -> Tensor:
        norm = super()._clip_grad_norm(model)
        self._refuse_non_finite(norm, "gradient")
        return norm

    def _refuse_non_finite(self, value: Any, what: str) -> None:
        if not torch.isfinite(torch.as_tensor(value)):
            self._diverged(what, self.state.global_step + 1)

    def _diverged(self, what: str, step: int) -> NoReturn:
        raise DivergedError(what, step, self.run.name, checkpoints.latest(Path(self.args.output_dir)))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self._loss_sum = logs.get("loss", self._loss_sum)

    def start_curve(self, step: int) -> None:
        """Take up the curve at `step`, or open it with a first evaluation."""
        self.curve.start(step)
        self._began, self._before = time.monotonic(), self.curve.points[-1].seconds if self.curve.points else 0.0
        if not self.curve.points:
            self.curve.add(Point(0, 0, None, 0.0, self._measure()))

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        step, run = self.state.global_step, self.run
        batches = step * run.world * self.args.gradient_accumulation_steps
        tokens = run.plan.tokens[min(batches, len(run.plan.tokens)) - 1]
        counts = self._measure()
        seconds = round(self._before + time.monotonic() - self._began, 3)
        self.curve.add(Point(step, tokens, self._loss_sum, seconds, counts))
        if self.curve.is_over(run.patience):
            self.control.should_training_stop = True
        return {"eval_accept_rate": counts.accept_rate}

    def _measure(self) -> Counts:
        rank, run = self.accelerator.process_index, self.run
        mine = run.dev[rank :: self.accelerator.num_processes]
        counts = measure(self.model, self.answer_head, mine, run.num_steps, run.batch_tokens)
        row = as_row(counts).to(self.accelerator.device)
        return Counts.of_numbers(self.accelerator.reduce(row, "sum").tolist())

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir)
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and not torch.isfinite(parameter).all():
                self._diverged(f"weight `{name}`", self.state.global_step)
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, SafetensorError, RuntimeError) as error:
            kept = checkpoints.latest(folder)
            raise AlignStopped(
                f"The checkpoint of step {self.state.global_step} cannot be written to {folder}"
                f" ({' '.join(str(error).split())[:120]}); free disk space and run the same command again: it goes on"
                f" from {kept if kept else 'the start'}."
            ) from None
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.mark_complete(checkpoints.path_of(folder, self.state.global_step))
            checkpoints.keep_only(folder, self.run.checkpoints_kept, {self.curve.best.step})

    def load_weights(self, checkpoint: Path) -> None:
        """Weights only, into the model."""
        self._load_from_checkpoint(str(checkpoint))


class _Flow(TrainerCallback):
    """Says when to evaluate and save, and how far it is."""

    def __init__(self, run: Run, say: Callable[[str], None]) -> None:
        self._run, self._say = run, say
        self._began = self._told = time.monotonic()
        self._first = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._began = self._told = time.monotonic()
        self._first = state.global_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        step, now = state.global_step, time.monotonic()
        if step in self._run.evaluate_at:
            control.should_log = control.should_evaluate = control.should_save = True
        if now - self._told > _REPORT_EVERY_S and state.is_world_process_zero:
            left = (now - self._began) / (step - self._first) * (self._run.steps - step)
            self._say(f"{self._run.name}: step {step}/{self._run.steps}, about {left / 60:.1f} min left")
            self._told = now

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # The last step's flags are still up: it would be evaluated and saved twice.
        control.should_log = control.should_evaluate = control.should_save = False
