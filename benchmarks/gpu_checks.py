"""Steps of benchmarks/gpu_run.py that look whether answers are the target's, and what a step does on the host."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import gpu_models, step_spans
from benchmarks.gpu_context import Arm, Context, Row
from benchmarks.gpu_engines import Answer, Batch
from benchmarks.gpu_speed import ARMS, same_answers, workload
from benchmarks.gpu_trace import read_trace, steady
from sglang_hetero_spec.cuda.support import GRAPHS_SWITCH, MERGE_SWITCH, STREAMS_SWITCH, VERIFY_SWITCH

# Everything that is new, and everything as it was.
WAYS = {
    "old": {VERIFY_SWITCH: "stock", MERGE_SWITCH: "torch", STREAMS_SWITCH: "serial", GRAPHS_SWITCH: "off"},
    "new": {VERIFY_SWITCH: "parts", MERGE_SWITCH: "triton", STREAMS_SWITCH: "parallel", GRAPHS_SWITCH: "on"},
}
KINDS = ("task0", "tree", "lora0", "copies", "general")


def lossless(context: Context) -> Iterator[Row]:
    """Greedy, the same tokens as the target alone, overlap and graphs on: a chain, a tree, an adapter and copies in one
    batch, everything that is new on and off, both page sizes."""
    tasks = [number % gpu_models.TASKS for number in range(max(context.scale.largest // 2, len(KINDS)))]
    prompts, tokens = context.prompts(tasks), context.scale.tokens // 2
    plain = Batch(prompts, None, tokens)
    mixed = Batch(prompts, [KINDS[number % len(KINDS)] for number in range(len(tasks))], tokens)
    ways: dict[str, dict[str, str]] = {"auto": {}} if context.is_dry else WAYS
    for page_size in context.scale.page_sizes:
        arms = {f"none-{page_size}": Arm(page_size=page_size)}
        for way, environ in ways.items():
            arms[f"{way}-{page_size}"] = Arm("HETERO", "kinds", page_size, environ)
        context.start(arms)
        want = context.ask(f"none-{page_size}", plain)
        for way in ways:
            got = context.ask(f"{way}-{page_size}", mixed)
            yield same_answers("lossless", f"greedy answers equal, page {page_size}, {way}", got, want)


def sampled(context: Context) -> Iterator[Row]:
    """At a temperature where the target's likeliest token has half of the probability, how often it came: of both
    engines, as a difference in standard errors."""
    context.start({name: ARMS[name] for name in ("none", "four")})
    size, scale = context.scale.largest, context.scale
    plain, mixed = workload(context, size)
    temperature = gpu_models.PEAK / math.log(scale.target.vocab_size)
    following = gpu_models.successors(scale.target.vocab_size).tolist()
    counts = []
    for name, batch in (("none", plain), ("four", mixed)):
        answer = context.ask(name, Batch(batch.prompts, batch.drafters, scale.tokens, temperature))
        counts.append(likeliest(answer, following))
    z = standard_errors(*counts)
    note = "likeliest token " + " : ".join(f"{came}/{drawn}" for came, drawn in counts) + f", {z:.1f} standard errors"
    yield Row("sampled", "sampled: 1 = less than 4 standard errors apart", float(abs(z) < 4), 1.0, note, "1")


def likeliest(answer: Answer, following: Sequence[int]) -> tuple[int, int]:
    """How many tokens were the likeliest ones after those before them, of how many."""
    pairs = [pair for ids in answer.output_ids for pair in itertools.pairwise(ids)]
    return sum(following[one] == other for one, other in pairs), len(pairs)


def standard_errors(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Between two shares (count, of), by their pooled share."""
    pooled = (one[0] + other[0]) / (one[1] + other[1])
    error = math.sqrt(pooled * (1 - pooled) * (1 / one[1] + 1 / other[1]))
    return (one[0] / one[1] - other[0] / other[1]) / error if error else 0.0


# Stages of benchmarks.step_spans that are SGLang's or a model's forward.
_FORWARDS = (step_spans.TARGET, step_spans.CATCH_UP, "propose: forward", "propose: gather KV", "accept")
HOST_MICROSECONDS = 150
_PROFILED = 24


def waits(context: Context) -> Iterator[Row]:
    """An engine of its own, with spans around the stages of a step: they cost time, and say whose a wait is."""
    size, path = context.scale.largest, context.out / "spans.jsonl"
    path.unlink(missing_ok=True)
    context.start({"watched": Arm("HETERO", "four", environ={step_spans.OUT: str(path)})})
    _, named = workload(context, size)
    # No drafter commits more than 5 tokens a step.
    mixed = Batch(named.prompts, named.drafters, max(named.num_tokens, 5 * _PROFILED))
    for _ in range(2):
        context.ask("watched", mixed)
    ours, stages = host_microseconds([json.loads(line) for line in path.read_text().splitlines()], size)
    what = f"{HOST_MICROSECONDS} us / host time of ours in a step, batch {size}, 4 drafters"
    yield Row("waits", what, HOST_MICROSECONDS / ours, 1.0, f"{ours:.0f} us: {stages}", "6")
    folder = context.out / "profile"
    profiled = Batch(mixed.prompts, mixed.drafters, mixed.num_tokens, profile=str(folder), profiled_steps=_PROFILED)
    context.ask("watched", profiled)
    context.ask("watched", mixed)  # by now the profiler has written
    yield of_trace(max(folder.glob("**/*.trace.json*"), key=lambda found: found.stat().st_mtime))
    context.stop("watched")


def host_microseconds(records: Sequence[dict[str, Any]], size: int) -> tuple[float, str]:
    """Per step of a whole batch, the first ones left out: of what is ours, and the dearest stages."""
    whole = [record["stages"] for record in records if record["requests"] == size and not record["profiled"]]
    steps = whole[len(whole) // 4 :]
    if not steps:
        raise ValueError(f"no step of {size} requests was seen")
    sums: dict[str, float] = {}
    for stages in steps:
        for stage, (seconds, *_) in stages.items():
            if stage not in _FORWARDS and not stage.startswith("SGLang"):
                sums[stage] = sums.get(stage, 0.0) + seconds / len(steps) * 1e6
    dearest = sorted(sums, key=lambda stage: -sums[stage])[:5]
    return sum(sums.values()), ", ".join(f"{stage} {sums[stage]:.0f}" for stage in dearest)


def of_trace(path: Path) -> Row:
    found = steady(read_trace(path))
    note = f"in {found.steps} steps, ours: {dict(found.ours)}; of all, a step: {found.per_step(found.waits):.1f} waits,"
    note += f" {found.per_step(found.copies):.1f} copies to the host"
    what = "steady steps: 1 = nothing of ours copies to the host or waits"
    return Row("waits", what, float(not found.ours), 1.0, note, "6")
