"""The steps of benchmarks/gpu_run.py, in order of importance, and the rows that they report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import gpu_models
from benchmarks.gpu_engines import Answer, Batch, EngineChild, arguments_of

CONTEXTS, WIDTHS, BATCHES = (2048, 8192, 32768), (8, 16, 64), (1, 8, 32)
LAYERS = 32  # that a step's plan is shared by, where times of a step are meant
ROUNDS = 3
START_SECONDS = 170  # an engine's first start builds kernels


@dataclass(frozen=True)
class Row:
    """wanted: the value must be at least that much; None where it is only told."""

    step: str
    what: str
    value: float | None
    wanted: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None or self.wanted is None:
            return ""
        return "reached. " if self.value >= self.wanted else "MISSED. "


@dataclass
class Context:
    out: Path
    target: str
    deadline: float = 0.0
    made: gpu_models.Made | None = None
    engines: dict[str, EngineChild] = field(default_factory=dict)
    ready: set[str] = field(default_factory=set)

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    @property
    def shape(self) -> gpu_models.Shape:
        return gpu_models.TARGETS[self.target]

    def models(self) -> gpu_models.Made:
        if self.made is None:
            self.made = gpu_models.make(self.out.parent / "gpu-models" / self.target, self.shape)
        return self.made

    def start(self, arms: dict[str, dict]) -> None:
        """All at once: their starts are mostly imports. environ, if given, goes to the process."""
        for name, arguments in arms.items():
            if name not in self.engines:
                environ = arguments.pop("environ", None)
                self.engines[name] = EngineChild(name, arguments, self.out / f"{name}.log", environ)
        for name in arms.keys() - self.ready:
            self.engines[name].wait_ready(min(START_SECONDS, self.left))
            self.ready.add(name)

    def close(self) -> None:
        for engine in self.engines.values():
            engine.stop()
        self.engines.clear()
        self.ready.clear()


@dataclass(frozen=True)
class Step:
    """seconds: the most that it is expected to take; it is not begun with less."""

    name: str
    what: str
    seconds: float
    run: Callable[[Context], list[Row]]


def kernels(context: Context) -> list[Row]:
    from benchmarks import gpu_kernels as gk

    wrong = [name for width in (1, 5, 64) for name in gk.merge_differences(gk.merge_case(32, 4, width))]
    rows = [Row("kernels", "merge kernel equals PyTorch (1 = yes)", float(not wrong), 1.0, ", ".join(wrong))]
    case = gk.merge_case(32, 4, 8)
    with gk.no_waiting():
        case.by_kernel()
    rows.append(Row("kernels", "merge of 4 drafters at batch 32 waits for nothing", 1.0, 1.0))
    kernel, plain = gk.milliseconds(case.by_kernel), gk.milliseconds(case.in_torch)
    rows.append(Row("kernels", "merge: PyTorch's time / the kernel's", plain / kernel, 1.0, f"{kernel:.3f} ms"))
    for page_size in (1, 16):
        for window in (-1, 512):
            trees = gk.attention_case(4, 1500, 16, page_size)
            way = gk.TwoParts(trees)
            way.plan(window)
            error = float((way.run().float() - gk.plain_attention(trees, window)).abs().max())
            what = f"two parts, page {page_size}, window {window}: error below 0.02"
            rows.append(Row("kernels", what, float(error < 0.02), 1.0, f"{error:.4f}"))
    with gk.no_waiting():
        way.plan()
        way.run()
    rows.append(Row("kernels", "planning and running two parts waits for nothing", 1.0, 1.0))
    return rows


def crossover(context: Context) -> list[Row]:
    """Prints rows for cuda/crossover.py too."""
    import torch

    from benchmarks import gpu_kernels as gk

    rows, table = [], []
    for batch_size in BATCHES:
        for width in WIDTHS:
            faster = []
            for length in CONTEXTS:
                if context.left < 20:
                    break
                parts, stock = gk.compare(batch_size, length, width)
                ratio = stock.step(LAYERS) / parts.step(LAYERS)
                note = f"plan {stock.plan:.2f} -> {parts.plan:.2f} ms, layer {stock.layer:.3f} -> {parts.layer:.3f} ms"
                what = f"stock / parts, batch {batch_size}, {width} nodes, context {length}"
                rows.append(Row("crossover", what, ratio, 1.0, note))
                faster.append(ratio >= 1.0)
                torch.cuda.empty_cache()
            if len(faster) == len(CONTEXTS):
                table.append((batch_size, width, from_context(faster)))
    name = torch.cuda.get_device_name()
    print("rows for sglang_hetero_spec/cuda/crossover.py:")
    for batch_size, width, first in table:
        print(f'    Crossover("{name}", {batch_size}, {width}, {first}),')
    return rows


def from_context(faster: list[bool]) -> int | None:
    """The shortest of CONTEXTS from which on all were faster."""
    first = len(faster)
    while first and faster[first - 1]:
        first -= 1
    return CONTEXTS[first] if first < len(CONTEXTS) else None


# Of verification, each with one of the two ways of merging.
WAYS = {
    "stock": {"SGLANG_HETERO_SPEC_VERIFY": "stock", "SGLANG_HETERO_SPEC_MERGE": "torch"},
    "parts": {"SGLANG_HETERO_SPEC_VERIFY": "parts", "SGLANG_HETERO_SPEC_MERGE": "triton"},
}


def lossless(context: Context) -> list[Row]:
    """Greedy, the same tokens as the target alone: overlap and graphs on, both ways of verification, two page sizes."""
    made = context.models()
    rows = []
    tasks = [number % gpu_models.TASKS for number in range(16)]
    prompts = gpu_models.prompts(context.shape.vocab_size, tasks, 64)
    plain = Batch(prompts, None, 96)
    mixed = Batch(prompts, [f"task{task}" for task in tasks], 96)
    for page_size in (1, 16):
        arms = {f"none-{page_size}": arguments_of(made.target, None, None, 0.2, page_size=page_size)}
        for way in WAYS:
            arguments = arguments_of(made.target, "HETERO", made.pools["four"], 0.2, page_size=page_size)
            arms[f"hetero-{way}-{page_size}"] = arguments | {"environ": WAYS[way]}
        context.start(arms)
        want = context.engines[f"none-{page_size}"].ask(plain, context.left)
        for way in WAYS:
            got = context.engines[f"hetero-{way}-{page_size}"].ask(mixed, context.left)
            same = sum(one == other for one, other in zip(got.output_ids, want.output_ids, strict=True))
            what = f"greedy answers equal, page {page_size}, {way}"
            note = f"{same}/{len(tasks)}, accept length {got.accept_length}"
            rows.append(Row("lossless", what, same / len(tasks), 1.0, note))
        context.close()
    return rows


def speed_arms(context: Context) -> dict[str, dict]:
    made = context.models()
    return {
        "none": arguments_of(made.target, None, None, 0.2),
        "standalone": arguments_of(made.target, "STANDALONE", made.general, 0.2),
        "hetero-one": arguments_of(made.target, "HETERO", made.pools["one"], 0.2),
        "hetero-four": arguments_of(made.target, "HETERO", made.pools["four"], 0.2),
    }


def in_turns(context: Context, batches: dict[str, Batch]) -> dict[str, list[Answer]]:
    """Each arm's batch, the arms in turns, after one that is not counted."""
    found: dict[str, list[Answer]] = {name: [] for name in batches}
    for number in range(ROUNDS + 1):
        for name, batch in batches.items():
            answer = context.engines[name.split(":")[0]].ask(batch, context.left)
            if number:
                found[name].append(answer)
    return found


def rate(answers: list[Answer]) -> float:
    return sum(answer.tokens for answer in answers) / sum(answer.seconds for answer in answers)


def workload(context: Context, size: int) -> tuple[Batch, Batch]:
    """A batch of all tasks as any server takes it, and with the drafter of each task named."""
    tasks = [number % gpu_models.TASKS for number in range(size)]
    prompts = gpu_models.prompts(context.shape.vocab_size, tasks, 128, seed=size)
    return Batch(prompts, None, 192), Batch(prompts, [f"task{task}" for task in tasks], 192)


def one_drafter(context: Context) -> list[Row]:
    context.start(speed_arms(context))
    rows = []
    for size in BATCHES:
        plain, _ = workload(context, size)
        found = in_turns(context, {"standalone": plain, "hetero-one": plain})
        ratio = rate(found["hetero-one"]) / rate(found["standalone"])
        note = f"accept length {found['hetero-one'][0].accept_length} : {found['standalone'][0].accept_length}"
        rows.append(Row("one", f"HETERO with one drafter / STANDALONE, batch {size}", ratio, 1.0, note))
    return rows


def mixed_batch(context: Context) -> list[Row]:
    context.start(speed_arms(context))
    _, mixed = workload(context, 32)
    prompts = gpu_models.prompts(context.shape.vocab_size, [0] * 32, 128)
    alone = Batch(prompts, ["task0"] * 32, 192)
    found = in_turns(context, {"hetero-four:mixed": mixed, "hetero-four:alone": alone})
    together, apart = found["hetero-four:mixed"], found["hetero-four:alone"]
    note = f"accept length {together[0].accept_length} : {apart[0].accept_length}"
    return [Row("mixed", "4 drafters in a batch / 1, batch 32", rate(together) / rate(apart), 0.85, note)]


def against_others(context: Context) -> list[Row]:
    context.start(speed_arms(context))
    rows = []
    for size in BATCHES:
        plain, mixed = workload(context, size)
        found = in_turns(context, {"none": plain, "standalone": plain, "hetero-four": mixed})
        ours = rate(found["hetero-four"])
        note = f"accept length {found['hetero-four'][0].accept_length}"
        wanted = 2.0 if size == 1 else 1.0
        rows.append(Row("others", f"HETERO / no speculation, batch {size}", ours / rate(found["none"]), wanted, note))
        rows.append(Row("others", f"HETERO / STANDALONE, batch {size}", ours / rate(found["standalone"]), 1.25, note))
    return rows


def host_time(context: Context) -> list[Row]:
    """Time on the host of what is ours in a step, device work queued and not waited for; batch 32, 4 drafters."""
    import torch

    from benchmarks import gpu_kernels as gk

    case = gk.merge_case(32, 4, 8)
    parts = gk.TwoParts(gk.attention_case(32, 2048, 8, 16))

    def ours() -> None:
        case.by_kernel()
        parts.plan()

    for _ in range(5):
        ours()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(50):
        ours()
    seconds = (time.perf_counter() - start) / 50
    torch.cuda.synchronize()
    microseconds = seconds * 1e6
    note = f"{microseconds:.0f} us of merge, masks and plan; the worker's bookkeeping is not in it"
    return [Row("host", "150 us / host time of merge and plan", 150 / microseconds, 1.0, note)]


STEPS = (
    Step("kernels", "are our kernels and FlashInfer's calls right, do they wait", 100, kernels),
    Step("crossover", "two parts against one mask at every shape", 90, crossover),
    Step("lossless", "greedy answers equal the target's, pages 1 and 16, both ways", 300, lossless),
    Step("one", "one drafter against STANDALONE with equal weights", 260, one_drafter),
    Step("mixed", "four drafters in a batch against one", 60, mixed_batch),
    Step("others", "mixed workload against no speculation and STANDALONE", 90, against_others),
    Step("host", "host time of a step's merge and plan", 15, host_time),
)
