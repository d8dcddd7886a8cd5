"""The steps of one alignment: choice of a start, training, export, and what align.json says of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState

from sglang_hetero_spec.build.align.answers import Split
from sglang_hetero_spec.build.align.batches import AnswerHead
from sglang_hetero_spec.build.align.bench import Bench
from sglang_hetero_spec.build.align.candidates import Start, choose, starts
from sglang_hetero_spec.build.align.evaluate import OUTLIERS, Counts, measure_by_task
from sglang_hetero_spec.build.align.exits import ExitHead
from sglang_hetero_spec.build.align.export import export, save_dtype
from sglang_hetero_spec.build.align.files import fingerprint
from sglang_hetero_spec.build.align.models import load_config, load_model, num_layers
from sglang_hetero_spec.build.align.opening import open_bench
from sglang_hetero_spec.build.align.run import CURVE, AlignRequest
from sglang_hetero_spec.build.align.settings import AlignSettings
from sglang_hetero_spec.build.align.training import train
from sglang_hetero_spec.build.sorted_file import write_exits
from sglang_hetero_spec.pool import weights_sha256


def distil(request: AlignRequest, split: Split, work: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything between the answers and the finished folder; what align.json says of it."""
    bench = open_bench(request, split, work, say)
    start, probes = _choose(bench)
    plan = bench.plan(bench.budget())
    teacher = bench.teacher(start, plan.tokens[-1])
    run = bench.run(start, plan, teacher, request.settings.evaluations, bench.name)
    say(f"{bench.name}: {len(bench.split.train)} answers, {plan.tokens[-1]:,} tokens, {run.steps} steps, {start.name}")
    *_, before = _measure(bench, bench.make_model(start).to(bench.device.name))
    model, trained = train(
        lambda: bench.make_model(start), run, work, request.out / CURVE, request.settings, bench.device, say
    )
    dtype = save_dtype(request.settings.save_dtype, load_config(request.target, "--target").dtype)
    params = sum(p.numel() for p in model.parameters())
    with PartialState().main_process_first():
        if PartialState().is_main_process:
            tokenizer = request.target if bench.own is None else request.base or request.tokenizer
            export(model, tokenizer, dtype, work / "final", request.out)
            if bench.exits:
                write_exits(request.out, bench.exits)
    by_exit = _measure(bench, _reload(bench))
    after = by_exit[-1]
    return {
        "task": request.task, "kind": _kind(request.settings),
        "start": {"source": start.source, "layers": list(start.layers), "base": request.base},
        "num_params": params, "weights_sha256": weights_sha256(request.out), "vocab_shared": bench.own is None,
        **_vocab(bench),
        "target": {"name_or_path": request.target, "fingerprint": fingerprint(request.target)},
        "settings": request.settings.model_dump(),
        "used": {"loss": start.loss, "optimizer": bench.optimizer, "learning_rate": bench.learning_rate,
                 "teacher": type(teacher).__name__ if teacher else None, "bf16": bench.device.bf16,
                 "device": bench.device.name, "processes": run.world},
        "answers": {"train": len(bench.split.train), "dev": len(bench.split.dev), "test": len(bench.split.test)},
        "trained": {"steps": trained.steps, "planned_steps": trained.planned_steps, "best_step": trained.best_step,
                    "tokens": trained.tokens},
        "heldout": {task: {"before": before[task].as_dict(), "after": after[task].as_dict()} for task in after},
        **_heldout_by_exit(bench, by_exit),
        "heldout_ids": sorted({row.id for row in (*bench.split.dev, *bench.split.test)}),
        "probes": probes, "seconds": {"training": trained.seconds},
    }  # fmt: skip


def _choose(bench: Bench) -> tuple[Start, list[dict[str, Any]]]:
    """First what to start from, then, where the loss is `auto`, how to train it."""
    settings, base = bench.settings, bench.request.base
    is_compared = bench.own is None or bench.own.by_target_tokens
    auto = ["forward_kl", "reverse_kl", "tvd++"] if is_compared else ["ce"]
    losses = auto if settings.loss == "auto" else [settings.loss]
    found = starts(settings, base is not None, losses, num_layers(bench.target) if base is None else 0)
    start, figures = choose(found, bench.probe, bench.say)
    more = [Start(start.source, loss, start.layers) for loss in losses]
    chosen, others = choose(more, bench.probe, bench.say)
    known = {figure["start"] for figure in figures}
    return chosen, [*figures, *(figure for figure in others if figure["start"] not in known)]


def _reload(bench: Bench) -> Any:
    """The drafter as it lies on disk."""
    if bench.settings.lora is None:
        return load_model(str(bench.request.out), bench.device.dtype, "--out").to(bench.device.name)
    from peft import PeftModel

    base = load_model(bench.request.base, bench.device.dtype, "--base")
    return PeftModel.from_pretrained(base, str(bench.request.out)).to(bench.device.name)


def _kind(settings: AlignSettings) -> str:
    if settings.exits is not None:
        return "sorted"
    return "lora" if settings.lora else "standalone"


def _measure(bench: Bench, model: Any) -> list[dict[str, Counts]]:
    """At each exit, for each task."""
    s = bench.settings
    head = ExitHead(model, bench.exits) if bench.exits else AnswerHead(model, bench.draft_ids)
    return measure_by_task(model.eval(), head, bench.split.test, s.num_steps, s.batch_tokens)


def _heldout_by_exit(bench: Bench, found: list[dict[str, Counts]]) -> dict[str, Any]:
    """`heldout` has those of the whole model."""
    if not bench.exits:
        return {}
    each = zip(bench.exits, found, strict=True)
    return {"heldout_by_exit": {str(exit): {t: c.as_dict() for t, c in counts.items()} for exit, counts in each}}


def _vocab(bench: Bench) -> dict[str, Any]:
    """counted_in: the tokens that all counts are of. heldout_bytes: of the answers behind `heldout`, by which drafters
    that count in different tokens can be compared."""
    is_target = bench.own is None or bench.own.by_target_tokens
    sizes: dict[str, int] = {}
    for row in bench.split.test:
        task = OUTLIERS if row.task is None else row.task
        sizes[task] = sizes.get(task, 0) + len(row.text.encode())
    return {
        "vocab": "shared" if bench.own is None else bench.own.mode,
        "overlap": None if bench.own is None else bench.own.overlap(),
        "counted_in": "target tokens" if is_target else "the drafter's own tokens",
        "heldout_bytes": sizes,
    }
