"""`hetero-spec demo`: the whole story on this machine; the work is in `sglang_hetero_spec.demo.run`."""

from __future__ import annotations

import argparse
from typing import Any

from sglang_hetero_spec.commands.output import DONE


def add(subcommands: Any) -> None:
    parser = subcommands.add_parser(
        "demo",
        help="serve held-out prompts with the small pool that ships with the package (a CPU is enough)",
        description="Starts the real engine three times (no speculation, STANDALONE, HETERO), sends the"
        " same mixed prompts, and shows what routing gains and that the output stays the same.",
    )
    parser.add_argument("--export", metavar="DIR", help="only write DIR/target and DIR/pool, and stop")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--num-prompts", type=positive, metavar="N", help="prompts to send in all")
    parser.add_argument("--tokens", type=positive, metavar="N", help="new tokens for each prompt")
    parser.add_argument("--concurrency", type=positive, metavar="N", help="requests in flight")
    parser.add_argument(
        "--target-params",
        type=parameters,
        metavar="N",
        help="make the target as costly as one of N parameters (300M, say) without changing its function",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: CUDA if there is any")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads of the engine")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from sglang_hetero_spec.demo.run import main

    return main(args) or DONE


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number


def parameters(text: str) -> int:
    """A number of parameters: 300000000, 300M or 0.3B."""
    units = {"K": 10**3, "M": 10**6, "B": 10**9}
    unit = units.get(text[-1:].upper(), 1)
    try:
        number = float(text[:-1] if unit > 1 else text) * unit
    except ValueError:
        number = 0.0
    if not 1 <= number < 1e13:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of parameters such as 300M")
    return round(number)
