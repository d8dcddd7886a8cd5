"""Steps of benchmarks/gpu_run.py that compare tokens per second: ratios of engines that take turns in one run."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import gpu_models
from benchmarks.gpu_context import Arm, Context, Row, accepted, device_name, in_turns, rate, steps_rate
from benchmarks.gpu_engines import Answer, Batch
from sglang_hetero_spec.cuda.support import GRAPHS_SWITCH, STREAMS_SWITCH, WIDTHS_SWITCH

ARMS = {
    "none": Arm(),
    "standalone": Arm("STANDALONE", "general"),
    "one": Arm("HETERO", "one"),
    "four": Arm("HETERO", "four"),
}
LORA = {"lora": Arm("HETERO", "lora")}
GRAPHS = {f"graphs-{way}": Arm("HETERO", "four", environ={GRAPHS_SWITCH: way}) for way in ("on", "off")}
WIDTHS = {f"widths-{number}": Arm("HETERO", "kinds", environ={WIDTHS_SWITCH: number}) for number in ("3", "1")}
STREAMS = {f"streams-{way}": Arm("HETERO", "four", environ={STREAMS_SWITCH: way}) for way in ("parallel", "serial")}


def workload(context: Context, size: int) -> tuple[Batch, Batch]:
    """A batch of all tasks as any server takes it, and with the drafter of each task named."""
    tasks = [number % gpu_models.TASKS for number in range(size)]
    prompts = context.prompts(tasks, seed=size)
    named = Batch(prompts, [f"task{task}" for task in tasks], context.scale.tokens)
    return Batch(prompts, None, context.scale.tokens), named


def one_drafter(context: Context) -> Iterator[Row]:
    context.start(ARMS)
    for size in context.scale.batches:
        plain, _ = workload(context, size)
        found = in_turns(context, {"standalone": plain, "one": plain})
        ratio = rate(found["one"]) / rate(found["standalone"])
        note = accepted(found, "one", "standalone")
        yield Row("one", f"HETERO with one drafter / STANDALONE, batch {size}", ratio, 1.0, note, "2")


def mixed_batch(context: Context) -> Iterator[Row]:
    """Every task's drafter is right equally often on its own task; what accept lengths still differ by is taken out."""
    context.start(ARMS)
    size = context.scale.largest
    _, mixed = workload(context, size)
    alone = Batch(context.prompts([0] * size, seed=size), ["task0"] * size, context.scale.tokens)
    found = in_turns(context, {"four:mixed": mixed, "four:alone": alone})
    ratio = steps_rate(found["four:mixed"]) / steps_rate(found["four:alone"])
    note = f"{accepted(found, 'four:mixed', 'four:alone')}, as it is {_raw(found, 'four:mixed', 'four:alone')}"
    yield Row("mixed", f"4 drafters in a batch / 1, batch {size}", ratio, 0.85, note, "3")


def _raw(found: dict[str, list[Answer]], one: str, other: str) -> str:
    return f"{rate(found[one]) / rate(found[other]):.2f}"


def against_others(context: Context) -> Iterator[Row]:
    """STANDALONE has the general drafter, which accepts most of the mix: task drafters know their own task alone."""
    context.start(ARMS)
    for size in context.scale.batches:
        plain, mixed = workload(context, size)
        found = in_turns(context, {"none": plain, "standalone": plain, "four": mixed})
        ours, note = rate(found["four"]), accepted(found, "four", "standalone")
        wanted = 2.0 if size == 1 else 1.0
        ratio = ours / rate(found["none"])
        yield Row("others", f"HETERO / no speculation, batch {size}", ratio, wanted, note, "4")
        ratio = ours / rate(found["standalone"])
        yield Row("others", f"HETERO / STANDALONE, batch {size}", ratio, 1.25, note, "4")


def adapters(context: Context) -> Iterator[Row]:
    """The adapters change next to nothing of what their base says, so accept lengths are equal."""
    context.start(LORA)
    size = context.scale.largest
    prompts = workload(context, size)[0].prompts
    names = {
        "mixed": [f"lora{number % gpu_models.TASKS}" for number in range(size)],
        "alone": ["lora0"] * size,
        "base": ["general"] * size,
    }
    found = in_turns(
        context, {f"lora:{name}": Batch(prompts, own, context.scale.tokens) for name, own in names.items()}
    )
    mixed = steps_rate(found["lora:mixed"])
    for other, whom, wanted in (("lora:base", "their base alone", 0.95), ("lora:alone", "1 adapter", None)):
        note = f"{accepted(found, 'lora:mixed', other)}, as it is {_raw(found, 'lora:mixed', other)}"
        what = f"4 adapters in a batch / {whom}, batch {size}"
        yield Row("lora", what, mixed / steps_rate(found[other]), wanted, note, "3" if wanted else "")


def draft_graphs(context: Context) -> Iterator[Row]:
    if context.is_dry:  # there are none on CPU, and asking for them is refused
        return
    context.start(GRAPHS)
    yield from _compared(context, "graphs", "draft graphs / none", "graphs-on", "graphs-off")


def verify_widths(context: Context) -> Iterator[Row]:
    """Requests of a narrow drafter in a pool with wide ones: what padding to the widest costs."""
    if context.is_dry:
        return
    context.start(WIDTHS)
    for size in context.scale.batches:
        prompts, tokens = context.prompts([0] * size, seed=size), context.scale.tokens
        batch = Batch(prompts, ["task0"] * size, tokens)
        found = in_turns(context, {"widths-3": batch, "widths-1": batch})
        ratio, note = rate(found["widths-3"]) / rate(found["widths-1"]), accepted(found, "widths-3", "widths-1")
        yield Row("widths", f"3 verify widths / 1, narrow drafter, batch {size}", ratio, None, note)


def draft_streams(context: Context) -> Iterator[Row]:
    """In one batch of all four drafters. The same proposals: verify steps are counted."""
    if context.is_dry:
        return
    context.start(STREAMS)
    ratios = []
    for row in _compared(context, "streams", "parallel streams / serial", "streams-parallel", "streams-serial"):
        ratios += [row.value] if row.wanted is None else []
        yield row
    if ratios and min(ratios) >= 1:
        print(f'for PARALLEL_IS_FASTER in cuda/streams.py: "{device_name()}"', flush=True)


def _compared(context: Context, step: str, what: str, one: str, other: str) -> Iterator[Row]:
    for size in context.scale.batches:
        _, mixed = workload(context, size)
        found = in_turns(context, {one: mixed, other: mixed})
        note = accepted(found, one, other)
        yield Row(step, f"{what}, 4 drafters, batch {size}", rate(found[one]) / rate(found[other]), None, note)
        yield same_answers(step, f"{what}: answers equal, batch {size}", found[one][0], found[other][0])


def same_answers(step: str, what: str, one: Answer, other: Answer, done_when: str = "1") -> Row:
    pairs = list(zip(one.output_ids, other.output_ids, strict=True))
    same = sum(a == b for a, b in pairs)
    note = f"{same}/{len(pairs)}, verify steps {one.verify_steps} : {other.verify_steps}"
    return Row(step, what, same / len(pairs), 1.0, note, done_when)
