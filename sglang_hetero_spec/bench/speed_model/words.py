"""What the model assumes, in words, to stand beside its figures."""

from __future__ import annotations

from sglang_hetero_spec.bench.speed_model.expect import ANSWER, PROMPT
from sglang_hetero_spec.bench.speed_model.roofline import Ranges

FITTED = (
    "A verify forward costs a, something more with more than one token, and b x tokens in it + c x tokens of context (c"
    " only where blocks differ in it); a proposal a + b x requests + c x prompt"
    " tokens that its drafter has to read; host work and scheduling a + b x requests; a prefill a + b x prompt tokens."
    " All seconds are fitted, none may be negative.",
    "A block is simulated step by step: requests that have arrived are read first, nothing else runs meanwhile; then"
    " all that run are drafted for, each drafter in turn, and verified in one forward as wide as the widest draft.",
    "A request's accept length is that of another one of its drafter on its task, drawn at random (mean of 6 draws).",
    "Known beforehand: the prompts, their tasks and lengths, who drafts for whom, when requests arrive, and how long"
    " the answers are. Not known: seconds and accept rates of what is held out.",
    "Adapters of one base are counted as drafters that propose one after the other, which is too dear for them.",
)


def expected(ranges: Ranges, has_run: bool) -> tuple[str, ...]:
    """Of the table for H100s."""

    def percent(pair: tuple[float, float]) -> str:
        return f"{100 * pair[0]:.0f} to {100 * pair[1]:.0f}%"

    def micro(pair: tuple[float, float]) -> str:
        return f"{1e6 * pair[0]:.0f} to {1e6 * pair[1]:.0f} us"

    def milli(pair: tuple[float, float]) -> str:
        return f"{1e3 * pair[0]:.2g} to {1e3 * pair[1]:.2g} ms"

    return (
        *(
            (
                "Accept rates are those of this run's drafters with this run's target, resampled over prompts, whatever"
                " the drafter's size: no model here is an 8B one. Use the break-even accept length for others.",
            )
            if has_run
            else ()
        ),
        f"Every request has a prompt of {PROMPT} tokens and an answer of {ANSWER}; no prefix is found in the cache.",
        "8B is in bf16 on one H100; 70B in bf16 on four, tensor-parallel, since 141 GB of weights leave hardly any"
        " room for KV on two. (In fp8 on two, 70B is as fast within a tenth.) Drafters are in bf16 and sharded like the"
        " target, as SGLang does it; KV is in bf16.",
        f"A forward takes the longer of bytes / (3.35 TB/s x {percent(ranges.bandwidth)}) and operations /"
        f" (989 TFLOP/s, fp8 1979, x {percent(ranges.arithmetic)}), and in a CUDA graph {micro(ranges.gap)} a layer and"
        f" {milli(ranges.launch)} more; with several H100s two all-reduces a layer of {micro(ranges.all_reduce)} and"
        " their bytes at 450 GB/s.",
        "Drafters' forwards are CUDA graphs, as HETERO captures them; in the second table they are launched kernel by"
        f" kernel ({micro(ranges.eager_gap)} a layer, {milli(ranges.eager_launch)} a forward).",
        f"The device waits {milli(ranges.host)} a step for the host without speculation, {milli(ranges.speculation)}"
        " with it.",
        "Within a range every value is taken as equally likely, and the ranges as independent of each other; they are"
        " judgement, not measurement. The interval is 5 to 95% of the draws, the same draws for all that is compared.",
        "Every task writes as many tokens; a batch is a random draw of the tasks; chains only, of the best length up to"
        " the run's. Verify forwards always have the full width.",
        "Adapters of one base draft in one forward at the base's price (measured on a CPU: 1.2 times that).",
    )


PUBLISHED = (
    "Speculation in the published figures is SGLang's STANDALONE, with one draft forward a step more than it has"
    " drafts; prefill is left out, so the model may be above them. The range of the seconds that speculation itself"
    " costs a step was chosen with the H100 figure in view: that row is no test, the rows without a drafter are.",
    "Without a drafter the figure of the RTX A6000 takes all of its data sheet's bandwidth for the weights alone, which"
    " no server has: that card's rows can hardly be of 8 requests in bf16.",
)
