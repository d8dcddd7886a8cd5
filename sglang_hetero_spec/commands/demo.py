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
    parser.add_argument(
        "--export",
        metavar="DIR",
        help="only write DIR/target and DIR/pool, and a smaller target with its pool in DIR/small, and stop",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--num-prompts", type=positive, metavar="N", help="prompts to send in all (default: 18)")
    parser.add_argument("--tokens", type=positive, metavar="N", help="new tokens for each prompt (default: 64)")
    parser.add_argument(
        "--concurrency",
        type=positives,
        metavar="N[,N...]",
        help="requests in flight (default: 4); several: one table for each",
    )
    parser.add_argument("--passes", type=positive, metavar="N", help="timed repetitions of each way (default: 2)")
    parser.add_argument(
        "--target-params",
        type=parameters,
        metavar="N",
        help="make the target as costly as one of N parameters without changing its function (default: 200M;"
        " 0: as it is)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: CUDA if there is any")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of the weights (default: float32 on a CPU, bfloat16 on CUDA)",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads of the engine (default: cores)")
    parser.add_argument("--oracle", action="store_true", help="tell HETERO each prompt's task instead of routing")
    parser.add_argument(
        "--one-at-a-time",
        action="store_true",
        help="never run two servers at once (less memory; passes do not alternate then)",
    )
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


def positives(text: str) -> tuple[int, ...]:
    """Whole numbers above 0 with commas between them, for argparse; one given twice counts once."""
    return tuple(dict.fromkeys(positive(part) for part in text.split(",")))


def parameters(text: str) -> int:
    """A number of parameters: 300000000, 300M or 0.3B; 0 stands for `as it is`."""
    units = {"K": 10**3, "M": 10**6, "B": 10**9}
    unit = units.get(text[-1:].upper(), 1)
    try:
        number = float(text[:-1] if unit > 1 else text) * unit
    except ValueError:
        number = -1.0
    if not (number == 0 or 1 <= number < 1e13):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of parameters such as 300M")
    return round(number)
