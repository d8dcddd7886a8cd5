"""The steps of benchmarks/gpu_run.py in order of importance, and those that need no engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks import gpu_checks, gpu_speed
from benchmarks.gpu_context import Context, Row, Step
from sglang_hetero_spec.cuda.support import MERGE_SWITCH

LAYERS = 32  # that a step's plan is shared by, where times of a step are meant


def kernels(context: Context) -> Iterator[Row]:
    from benchmarks import gpu_kernels as gk

    wrong = [name for width in (1, 5, 64) for name in gk.merge_differences(gk.merge_case(32, 4, width))]
    yield Row("kernels", "merge kernel equals PyTorch (1 = yes)", float(not wrong), 1.0, ", ".join(wrong))
    case = gk.merge_case(32, 4, 8)
    with gk.no_waiting():
        case.by_kernel()
    yield Row("kernels", "merge of 4 drafters, batch 32: 1 = waits for nothing", 1.0, 1.0, done_when="6")
    kernel, plain = gk.milliseconds(case.by_kernel), gk.milliseconds(case.in_torch)
    yield Row("kernels", "merge: PyTorch's time / the kernel's", plain / kernel, 1.0, f"{kernel:.3f} ms")
    if not wrong and kernel < plain:
        context.switches[MERGE_SWITCH] = "triton"
    for page_size in (1, 16):
        for window in (-1, 512):
            trees = gk.attention_case(4, 1500, 16, page_size)
            way = gk.TwoParts(trees)
            way.plan(window)
            error = float((way.run().float() - gk.plain_attention(trees, window)).abs().max())
            what = f"two parts, page {page_size}, window {window}: 1 = error below 0.02"
            yield Row("kernels", what, float(error < 0.02), 1.0, f"{error:.4f}", done_when="1")
    with gk.no_waiting():
        way.plan()
        way.run()
    yield Row("kernels", "planning and running two parts: 1 = waits for nothing", 1.0, 1.0, done_when="6")


def crossover(context: Context) -> Iterator[Row]:
    """Prints rows for cuda/crossover.py too."""
    import torch

    from benchmarks import gpu_kernels as gk

    name, scale = torch.cuda.get_device_name(), context.scale
    wins, shapes, chosen, growth = 0, 0, [], []
    for width in scale.widths:
        for batch_size in scale.batches:
            ratios, plans = [], []
            for length in scale.contexts:
                if context.left < 5:
                    raise TimeoutError(f"after {shapes} shapes")
                parts, stock = gk.compare(batch_size, length, width)
                ratios.append(stock.step(LAYERS) / parts.step(LAYERS))
                plans.append(parts.plan)
                shapes, wins = shapes + 1, wins + (ratios[-1] >= 1)
                note = f"plan {stock.plan:.2f} -> {parts.plan:.2f} ms, layer {stock.layer:.3f} -> {parts.layer:.3f} ms"
                what = f"stock / parts, batch {batch_size}, {width} nodes, context {length}"
                yield Row("crossover", what, ratios[-1], None, note, done_when="5", is_detail=True)
                torch.cuda.empty_cache()
            first = from_context([ratio >= 1 for ratio in ratios], scale.contexts)
            in_parts = [first is not None and length >= first for length in scale.contexts]
            chosen += [ratio if parts_win else 1.0 for ratio, parts_win in zip(ratios, in_parts, strict=True)]
            growth.append(plans[0] / plans[-1])
            print(f'for cuda/crossover.py:    Crossover("{name}", {batch_size}, {width}, {first}),', flush=True)
    note = f"two parts win at {wins} of {shapes} shapes"
    yield Row("crossover", "SGLang's verification / the way chosen, slowest shape", min(chosen), 1.0, note, "5")
    what = f"plan at context {scale.contexts[0]} / at {scale.contexts[-1]}, worst shape"
    yield Row("crossover", what, min(growth), 0.8, "of two parts, masks and indices in it", "5")


def from_context(faster: Sequence[bool], contexts: Sequence[int]) -> int | None:
    """The shortest of the contexts from which on all were faster."""
    first = len(faster)
    while first and faster[first - 1]:
        first -= 1
    return contexts[first] if first < len(contexts) else None


# Seconds: of H100 or H200, the first engines' with the building of kernels.
STEPS = (
    Step("kernels", "are our kernels and FlashInfer's calls right, do they wait", 100, kernels, needs_cuda=True),
    Step("lossless", "greedy answers are the target's: all kinds, both ways, pages 1 and 16", 400, gpu_checks.lossless),
    Step("one", "one drafter against STANDALONE with equal weights", 200, gpu_speed.one_drafter),
    Step("mixed", "four drafters in a batch against one", 60, gpu_speed.mixed_batch),
    Step("others", "mixed workload against no speculation and STANDALONE", 120, gpu_speed.against_others),
    Step("sampled", "sampled answers have the target's distribution", 40, gpu_checks.sampled),
    Step("lora", "four adapters in a batch against their base alone", 90, gpu_speed.adapters),
    Step("crossover", "two parts against one mask at every shape", 120, crossover, needs_cuda=True),
    Step("waits", "what a profile of steady steps shows of copies and waits, host time", 120, gpu_checks.waits),
    Step("graphs", "draft models as CUDA graphs against none", 120, gpu_speed.draft_graphs),
    Step("widths", "several verify widths against one", 90, gpu_speed.verify_widths),
    Step("streams", "drafters on streams of their own against one after another", 90, gpu_speed.draft_streams),
)
