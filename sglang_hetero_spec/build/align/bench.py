"""What the trainings of one alignment share: models, answers as the drafter reads them, teacher, plan."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from torch import Tensor

from sglang_hetero_spec.build.align import cache
from sglang_hetero_spec.build.align.answers import Row, Split, by_task
from sglang_hetero_spec.build.align.batches import AnswerHead
from sglang_hetero_spec.build.align.candidates import Probe, Start
from sglang_hetero_spec.build.align.curve import Curve
from sglang_hetero_spec.build.align.errors import AlignError
from sglang_hetero_spec.build.align.files import fingerprint, write_json
from sglang_hetero_spec.build.align.models import (
    Device,
    cut_model,
    fresh_model,
    head_params,
    load_config,
    load_model,
    with_lora,
)
from sglang_hetero_spec.build.align.own_vocab import OwnVocab
from sglang_hetero_spec.build.align.plan import Plan, budgets, make_plan
from sglang_hetero_spec.build.align.run import CURVE, GENERAL, AlignRequest
from sglang_hetero_spec.build.align.settings import AlignSettings
from sglang_hetero_spec.build.align.teacher import HiddenTeacher, LiveTeacher, Teacher, TopKTeacher, is_plain_head
from sglang_hetero_spec.build.align.trainer import Run
from sglang_hetero_spec.build.align.training import evaluation_steps, steps_of, train

_RATES = {"muon": 6e-3, "adamw": 1e-4, "lora-adamw": 3e-4, "lora-muon": 2e-2}
_PROBE_SHARE = 20
_GIB = 1 << 30


@dataclass(frozen=True)
class Bench:
    """`split`: in the drafter's ids. own: the drafter's vocabulary, None where it is the target's."""

    request: AlignRequest
    settings: AlignSettings
    split: Split
    target: Any
    target_head: AnswerHead
    device: Device
    own: OwnVocab | None
    work: Path
    say: Callable[[str], None]

    @property
    def name(self) -> str:
        return self.request.task or GENERAL

    @property
    def optimizer(self) -> str:
        is_fresh = self.settings.shape is not None and self.request.base is None
        return self.settings.optimizer or ("muon" if is_fresh else "adamw")

    @property
    def learning_rate(self) -> float:
        kind = f"lora-{self.optimizer}" if self.settings.lora else self.optimizer
        return self.settings.learning_rate or _RATES[kind]

    @property
    def draft_ids(self) -> Tensor | None:
        """What the drafter may propose; None for all it has."""
        return None if self.own is None else self.own.draft_ids

    @property
    def exits(self) -> tuple[int, ...]:
        """Of a sorted drafter; none of another."""
        return tuple(self.settings.exits or ())

    def budget(self) -> dict[str | None, int]:
        """Tokens for each task."""
        groups = by_task(self.split.train)
        sizes = [sum(map(len, rows)) for rows in groups.values()]
        outliers = [task is None for task in groups]
        return dict(zip(groups, budgets(sizes, outliers, self.settings.tokens, self.settings.epochs), strict=True))

    def plan(self, budget: dict[str | None, int]) -> Plan:
        rows = self.split.train
        groups = [[i for i, row in enumerate(rows) if row.task == task] for task in budget]
        lengths = [len(row) for row in rows]
        return make_plan(groups, lengths, list(budget.values()), self.settings.batch_tokens, self.settings.seed)

    def make_model(self, start: Start) -> Any:
        """The same weights each time."""
        if start.source == "layers":
            return cut_model(self.target, start.layers, self.settings.seed)
        if start.source == "shape":
            own = None if self.own is None else self.own.config
            return fresh_model(self.target.config, self.settings.shape, self.settings.seed, own)
        import torch

        base = load_model(self.request.base, torch.float32, "--base")
        return with_lora(base, self.settings.lora, self.settings.seed) if self.settings.lora else base

    def teacher(self, start: Start, planned_tokens: int) -> Teacher | None:
        """None for the loss by tokens."""
        if start.loss == "ce":
            return None
        only = None if self.own is None else self.own.target_ids
        size = self._common_size(start) if only is None else len(only)
        kind = self.cache_kind(planned_tokens, size)
        head = self.target_head if only is None else AnswerHead(self.target, only)
        if kind == "none":
            return LiveTeacher(self.target, head, size)
        s = self.settings
        digest = "" if self.own is None else self.own.digest
        kept = size if kind == "topk" or only is None else self.target.config.vocab_size
        spec = cache.CacheSpec(
            kind, fingerprint(self.request.target), str(self.target.dtype), s.cache_topk, kept, digest
        )
        folder = self.request.cache or self.work / "cache"
        with PartialState().main_process_first():
            shards = cache.fill(folder, self._said, spec, self.target, head, s.batch_tokens, self.say)
        if kind == "topk":
            return TopKTeacher(shards, size)
        return HiddenTeacher(self.target.get_output_embeddings(), shards, size, only)

    @property
    def _said(self) -> list[Row]:
        """What is trained on, in the target's ids."""
        return [row.by_target for row in self.split.train]

    def _common_size(self, start: Start) -> int:
        """Ids of target and drafter, where both mean the same."""
        size = self.target.config.vocab_size
        if start.source != "base":
            return size
        return min(size, load_config(self.request.base, "--base").vocab_size)

    def cache_kind(self, planned_tokens: int, size: int) -> Any:
        """`auto`: hidden states where the target would otherwise see most tokens twice, and they fit."""
        s, rows = self.settings, self._said
        if s.cache in ("none", "topk"):
            return s.cache
        is_plain = is_plain_head(self.target, self.target_head, rows[0])
        if s.cache == "hidden":
            if not is_plain:
                raise AlignError("The target changes its logits after its output layer; set `cache` to topk or none.")
            return "hidden"
        spec = cache.CacheSpec("hidden", "", "", 0, size)
        fits = cache.estimated_bytes(rows, spec, self.target.config.hidden_size) <= s.cache_gib * _GIB
        is_shared = self.request.cache is not None
        return "hidden" if is_plain and fits and (is_shared or planned_tokens > 1.5 * sum(map(len, rows))) else "none"

    def run(self, start: Start, plan: Plan, teacher: Teacher | None, evaluations: int, name: str) -> Run:
        s, world = self.settings, PartialState().num_processes
        steps = steps_of(len(plan.batches), world, s.gradient_accumulation)
        # Every evaluation runs all of them: the general drafter takes some of each task.
        dev = self.split.dev[:: math.ceil(len(self.split.dev) / s.heldout_most)]
        return Run(
            name=name, rows=self.split.train, plan=plan, dev=dev, loss=start.loss, teacher=teacher,
            optimizer=self.optimizer, learning_rate=self.learning_rate, weight_decay=s.weight_decay,
            num_steps=s.num_steps, batch_tokens=s.batch_tokens, patience=s.patience,
            checkpoints_kept=s.checkpoints_kept, evaluate_at=evaluation_steps(steps, evaluations), steps=steps,
            world=world, only=self.draft_ids, exits=self.exits,
        )  # fmt: skip

    def probe(self, start: Start) -> dict[str, Any]:
        """Figures of one start after a short training; not measured twice, also not after a kill."""
        folder = self.work / "probes"
        note = folder / f"{start.name}.json"
        if not note.is_file():
            self.say(f"trying {start.name}")
            figures = self._probe(start, folder / start.name).as_dict(self.settings.num_steps)
            if PartialState().is_main_process:
                write_json(note, figures)
            PartialState().wait_for_everyone()
        return json.loads(note.read_text(encoding="utf-8"))

    def _probe(self, start: Start, folder: Path) -> Probe:
        budget = self.budget()
        whole = sum(budget.values())
        most = min(whole, self.settings.probe_tokens or max(1, whole // _PROBE_SHARE))
        plan = self.plan({task: max(1, tokens * most // whole) for task, tokens in budget.items()})
        run = self.run(start, plan, self.teacher(start, whole), 1, f"{self.name} ({start.name})")
        path = folder / CURVE
        folder.mkdir(parents=True, exist_ok=True)
        model, _ = train(lambda: self.make_model(start), run, folder, path, self.settings, self.device, self.say)
        curve = Curve(path, False)
        curve.start(run.steps)
        return Probe(start, curve.best.counts, head_params(model) / head_params(self.target))
