"""Drafters with another vocabulary against one with the target's, of equal size and training.

    python -m benchmarks.vocab_speed [OPTIONS OF hetero-spec demo]

One plain server and one HETERO server with the drafters of tests/models, passes alternating, one drafter at a time for
all requests. Defaults: 48 prompts, 3 passes, 1 in flight, the demo's target at the cost of 300M parameters. The machine
should have nothing else to do. Exit code 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.one_pool import by_hand, measure_arms, output_line
from sglang_hetero_spec.cli import build_parser
from sglang_hetero_spec.commands.output import DONE, FAILED
from sglang_hetero_spec.demo.arms import HETERO, NONE, Arm
from sglang_hetero_spec.demo.options import from_arguments
from sglang_hetero_spec.demo.summary import Results

MODELS = Path(__file__).resolve().parents[1] / "tests" / "models"
SHARED = "shared"
# name: model, vocab, num_steps, num_draft_tokens
DRAFTERS = {
    SHARED: ("shared", "shared", 4, 5),
    "tli-bpe": ("bpe-tli", "tli", 4, 5),
    "slem-bpe": ("bpe", "slem", 5, 5),
    "slem-sentencepiece": ("sentencepiece", "slem", 6, 5),
    "slem-bytes": ("bytes", "slem", 24, 5),
}
DEFAULTS = ("--num-prompts", "48", "--passes", "3", "--concurrency", "1", "--target-params", "300M")
LEAST_LENGTH = {"tli": 0.90, "slem": 0.95}


def manifest() -> dict[str, Any]:
    drafters = [
        {
            **{"name": name, "kind": "standalone", "path": str(MODELS / model), "external": True, "vocab": vocab},
            **{"num_steps": num_steps, "topk": 1, "num_draft_tokens": num_draft_tokens},
        }
        for name, (model, vocab, num_steps, num_draft_tokens) in DRAFTERS.items()
    ]
    return by_hand(drafters, SHARED)


def show(results: Results) -> bool:
    """Prints the table; whether every limit holds."""
    held = True
    for concurrency in results.concurrencies:
        base = results.tally(SHARED, concurrency).accept_length or 1.0
        for name, (_, vocab, *_) in DRAFTERS.items():
            length = results.tally(name, concurrency).accept_length or 0.0
            ratio = results.ratio(name, NONE, concurrency)
            assert ratio is not None
            limit = LEAST_LENGTH.get(vocab, 0.0)
            ok = length / base >= limit and ratio.overall > 1
            held = held and ok
            verdict = "ok  " if ok else "MISS"
            print(f"{verdict} {concurrency:2} in flight, {name:20} accept length {length:.3f}, {length / base:.3f} of")
            print(f"       the shared one's (at least {limit:.2f}); {ratio.overall:.2f} times no speculation", end=" ")
            print(f"({ratio.smallest:.2f}-{ratio.largest:.2f})")
            tasks = (f"{task} {results.tally(name, concurrency, task).accept_length:.2f}" for task in results.tasks)
            print(f"       {', '.join(tasks)}")
    print(output_line(results))
    return held


def main(argv: list[str] | None = None) -> int:
    _, rest = argparse.ArgumentParser(description=__doc__).parse_known_args(argv)
    options = from_arguments(build_parser().parse_args(["demo", *DEFAULTS, *rest]))
    arms = [Arm(name, HETERO, override={"drafter": name}) for name in DRAFTERS]
    results = measure_arms(manifest(), arms, options)
    return DONE if show(results) else FAILED


if __name__ == "__main__":
    sys.exit(main())
