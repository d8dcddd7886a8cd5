"""The steps of one alignment: models, teacher, plan, choice of a start, training, export."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from sglang_hetero_spec.build.align import cache
from sglang_hetero_spec.build.align.answers import Row, Split, by_task
from sglang_hetero_spec.build.align.batches import AnswerHead
from sglang_hetero_spec.build.align.candidates import Probe, Start, choose, starts
from sglang_hetero_spec.build.align.curve import Curve
from sglang_hetero_spec.build.align.errors import AlignError
from sglang_hetero_spec.build.align.evaluate import Counts, measure_by_task
from sglang_hetero_spec.build.align.export import export, save_dtype
from sglang_hetero_spec.build.align.files import fingerprint, write_json
from sglang_hetero_spec.build.align.models import (
    Device,
    cut_model,
    fresh_model,
    head_params,
    load_config,
    load_model,
    num_layers,
    same_vocabulary,
    with_lora,
)
from sglang_hetero_spec.build.align.plan import Plan, budgets, make_plan
from sglang_hetero_spec.build.align.retokenize import retokenize
from sglang_hetero_spec.build.align.run import CURVE, GENERAL, AlignRequest, limited
from sglang_hetero_spec.build.align.settings import AlignSettings
from sglang_hetero_spec.build.align.teacher import HiddenTeacher, LiveTeacher, Teacher, TopKTeacher, is_plain_head
from sglang_hetero_spec.build.align.trainer import Run
from sglang_hetero_spec.build.align.training import evaluation_steps, steps_of, train
from sglang_hetero_spec.pool import weights_sha256

_RATES = {"muon": 6e-3, "adamw": 1e-4, "lora": 3e-4}
_PROBE_SHARE = 20
_GIB = 1 << 30
_LONGEST = 1 << 20


@dataclass(frozen=True)
class _Bench:
    """What all trainings of one alignment share. `split`: in the drafter's ids."""

    request: AlignRequest
    settings: AlignSettings
    split: Split
    target: Any
    target_head: AnswerHead
    device: Device
    shares_vocabulary: bool
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
        kind = "lora" if self.settings.lora and self.optimizer == "adamw" else self.optimizer
        return self.settings.learning_rate or _RATES[kind]

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
            return fresh_model(self.target.config, self.settings.shape, self.settings.seed)
        import torch

        base = load_model(self.request.base, torch.float32, "--base")
        return with_lora(base, self.settings.lora, self.settings.seed) if self.settings.lora else base

    def teacher(self, start: Start, planned_tokens: int) -> Teacher | None:
        """None for the loss by tokens."""
        if start.loss == "ce":
            return None
        size = min(self.target.config.vocab_size, self._drafter_vocab(start))
        kind = self.cache_kind(planned_tokens, size)
        if kind == "none":
            return LiveTeacher(self.target, self.target_head, size)
        s = self.settings
        spec = cache.CacheSpec(kind, fingerprint(self.request.target), str(self.target.dtype), s.cache_topk, size)
        folder = self.request.cache or self.work / "cache"
        with PartialState().main_process_first():
            shards = cache.fill(folder, self.split.train, spec, self.target, self.target_head, s.batch_tokens, self.say)
        if kind == "topk":
            return TopKTeacher(shards, size)
        return HiddenTeacher(self.target.get_output_embeddings(), shards, size)

    def _drafter_vocab(self, start: Start) -> int:
        if start.source != "base":
            return self.target.config.vocab_size
        return load_config(self.request.base, "--base").vocab_size

    def cache_kind(self, planned_tokens: int, size: int) -> Any:
        """`auto`: hidden states where the target would otherwise see most tokens twice, and they fit."""
        s, rows = self.settings, self.split.train
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
            world=world,
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


def distil(request: AlignRequest, split: Split, work: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything between the answers and the finished folder; what align.json says of it."""
    bench = _bench(request, split, work, say)
    start, probes = _choose(bench)
    plan = bench.plan(bench.budget())
    teacher = bench.teacher(start, plan.tokens[-1])
    run = bench.run(start, plan, teacher, request.settings.evaluations, bench.name)
    say(f"{bench.name}: {len(bench.split.train)} answers, {plan.tokens[-1]:,} tokens, {run.steps} steps, {start.name}")
    before = _measure(bench, bench.make_model(start).to(bench.device.name))
    model, trained = train(
        lambda: bench.make_model(start), run, work, request.out / CURVE, request.settings, bench.device, say
    )
    dtype = save_dtype(request.settings.save_dtype, load_config(request.target, "--target").dtype)
    params = sum(p.numel() for p in model.parameters())
    with PartialState().main_process_first():
        if PartialState().is_main_process:
            tokenizer = request.target if bench.shares_vocabulary else request.base
            export(model, tokenizer, dtype, work / "final", request.out)
    after = _measure(bench, _reload(bench))
    return {
        "task": request.task, "kind": "lora" if request.settings.lora else "standalone",
        "start": {"source": start.source, "layers": list(start.layers), "base": request.base},
        "num_params": params, "weights_sha256": weights_sha256(request.out), "vocab_shared": bench.shares_vocabulary,
        "target": {"name_or_path": request.target, "fingerprint": fingerprint(request.target)},
        "settings": request.settings.model_dump(),
        "used": {"loss": start.loss, "optimizer": bench.optimizer, "learning_rate": bench.learning_rate,
                 "teacher": type(teacher).__name__ if teacher else None, "bf16": bench.device.bf16,
                 "device": bench.device.name, "processes": run.world},
        "answers": {"train": len(bench.split.train), "dev": len(bench.split.dev), "test": len(bench.split.test)},
        "trained": {"steps": trained.steps, "planned_steps": trained.planned_steps, "best_step": trained.best_step,
                    "tokens": trained.tokens},
        "heldout": {task: {"before": before[task].as_dict(), "after": after[task].as_dict()} for task in after},
        "heldout_ids": sorted({row.id for row in (*bench.split.dev, *bench.split.test)}),
        "probes": probes, "seconds": {"training": trained.seconds},
    }  # fmt: skip


def _bench(request: AlignRequest, split: Split, work: Path, say: Callable[[str], None]) -> _Bench:
    settings = request.settings
    if settings.lora is not None and request.base is None:
        raise AlignError("`lora` puts an adapter on a base drafter; name one with --base.")
    device = Device.find(settings.bf16)
    # The first one decides for the process: left to itself it would not join other processes on CPUs.
    state = PartialState(cpu=device.name == "cpu")
    if state.num_processes != int(os.environ.get("WORLD_SIZE", "1")):
        raise AlignError(
            f"{os.environ['WORLD_SIZE']} processes were launched, but accelerate joined {state.num_processes}; start"
            " them by `accelerate launch` with --multi_gpu (or --cpu and one process)."
        )
    shares = request.base is None or same_vocabulary(request.base, request.target)
    if not shares and settings.loss not in ("ce", "auto"):
        raise AlignError(
            f"--base {request.base} has not the target's vocabulary, and `loss: {settings.loss}` compares its tokens"
            " one by one; set `loss: ce`."
        )
    target = load_model(request.target, device.dtype, "--target").to(device.name).eval().requires_grad_(False)
    _check_ids(request, split, target)
    if not shares:
        split = Split(*(retokenize(part, request.target, request.base) for part in _parts(split)))
    split = limited(split, _context(request, target))
    return _Bench(request, settings, split, target, AnswerHead(target), device, shares, work, say)


def _context(request: AlignRequest, target: Any) -> int:
    configs = [target.config, *([load_config(request.base, "--base")] if request.base else [])]
    lengths = [getattr(config, "max_position_embeddings", None) or _LONGEST for config in configs]
    return min(request.settings.max_row_tokens or _LONGEST, *lengths)


def _parts(split: Split) -> tuple[Sequence[Row], ...]:
    return split.train, split.dev, split.test


def _check_ids(request: AlignRequest, split: Split, target: Any) -> None:
    highest = max(max(*row.prompt, *row.answer) for part in _parts(split) for row in part)
    size = target.config.vocab_size
    if highest >= size:
        raise AlignError(
            f"{request.answers} has the token id {highest}, but the target {request.target} has {size} tokens; give"
            " the target that wrote the answers."
        )


def _choose(bench: _Bench) -> tuple[Start, list[dict[str, Any]]]:
    """First what to start from, then, where the loss is `auto`, how to train it."""
    settings, base = bench.settings, bench.request.base
    auto = ["forward_kl", "reverse_kl", "tvd++"] if bench.shares_vocabulary else ["ce"]
    losses = auto if settings.loss == "auto" else [settings.loss]
    found = starts(settings, base is not None, losses, num_layers(bench.target) if base is None else 0)
    start, figures = choose(found, bench.probe, bench.say)
    more = [Start(start.source, loss, start.layers) for loss in losses]
    chosen, others = choose(more, bench.probe, bench.say)
    known = {figure["start"] for figure in figures}
    return chosen, [*figures, *(figure for figure in others if figure["start"] not in known)]


def _reload(bench: _Bench) -> Any:
    """The drafter as it lies on disk."""
    if bench.settings.lora is None:
        return load_model(str(bench.request.out), bench.device.dtype, "--out").to(bench.device.name)
    from peft import PeftModel

    base = load_model(bench.request.base, bench.device.dtype, "--base")
    return PeftModel.from_pretrained(base, str(bench.request.out)).to(bench.device.name)


def _measure(bench: _Bench, model: Any) -> dict[str, Counts]:
    s = bench.settings
    return measure_by_task(model.eval(), AnswerHead(model), bench.split.test, s.num_steps, s.batch_tokens)
