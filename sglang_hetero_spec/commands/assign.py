"""`hetero-spec assign`: which drafter, with which settings, serves which task, and what that is expected to gain."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from sglang_hetero_spec.commands.output import DONE, console, print_json, say

if TYPE_CHECKING:
    from sglang_hetero_spec.build.assign.result import Assignment


def add(subcommands: Any) -> None:
    parser = subcommands.add_parser(
        "assign",
        help="give each task its drafter, from the counts of a profile",
        description="Chooses drafters, their settings and who serves which task, for the most expected tokens per"
        " second over the traffic. `none` is always a candidate.",
    )
    parser.add_argument("--profile", metavar="FILE", required=True, help="profile.jsonl of `hetero-spec profile`")
    parser.add_argument("--out", metavar="FILE", required=True, help="assignment.json to write")
    parser.add_argument("--max-drafters", type=whole, metavar="N", help="drafters in the pool (`none` does not count)")
    parser.add_argument(
        "--max-memory", type=num_bytes, metavar="BYTES", help="of all drafters together: 500000000, 500M or 2G"
    )
    parser.add_argument(
        "--memory", type=sizes, metavar="DRAFTER=BYTES,...", help="of each drafter; needed with --max-memory"
    )
    parser.add_argument(
        "--traffic", type=weights, metavar="TASK=WEIGHT,...", help="share of the requests (default: equal)"
    )
    parser.add_argument(
        "--concurrency", type=whole, metavar="N", help="requests in flight to plan for (default: the most profiled)"
    )
    parser.add_argument(
        "--shorter-chains",
        action="store_true",
        help="also consider chains shorter than the profiled ones, as their counts by position predict them",
    )
    parser.add_argument(
        "--fixed-width",
        action="store_true",
        help="every verify forward has the pool's widest width, as with CUDA graphs",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object: what is written")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from sglang_hetero_spec.build.assign.assignment import assign
    from sglang_hetero_spec.build.assign.result import write_assignment
    from sglang_hetero_spec.build.profile.records import read_profile

    assignment = assign(
        read_profile(args.profile),
        traffic=args.traffic,
        max_drafters=args.max_drafters,
        max_memory=args.max_memory,
        memory=args.memory,
        concurrency=args.concurrency,
        fixed_width=args.fixed_width,
        derive_shorter=args.shorter_chains,
    )
    write_assignment(args.out, assignment)
    if args.json:
        print_json(assignment.model_dump(mode="json"))
    else:
        _print(assignment)
    if assignment.left_out:
        say(f"Not considered, because it was not profiled: {', '.join(assignment.left_out)}.")
    return DONE


def _print(assignment: Assignment) -> None:
    from rich.table import Table

    table = Table(title=f"Expected at {assignment.concurrency} in flight, tokens per second", title_justify="left")
    for heading in ("task", "drafter", "steps/topk/tokens", "accept length", "none", "best single", "assigned", "gain"):
        table.add_column(heading, justify="left" if heading in ("task", "drafter") else "right")
    for task in assignment.tasks:
        shape = "-" if task.num_steps == 0 else str(task.candidate.settings)
        table.add_row(task.task, task.drafter, shape, f"{task.accept_length:.2f}", *_speeds(task.expected))
    table.add_section()
    table.add_row("(mixed)", "", "", "", *_speeds(assignment.expected))
    out = console()
    out.print(table)
    single, expected = assignment.best_single, assignment.expected
    out.print(
        f"{expected.gain_over_none:.2f} times no speculation, {expected.gain_over_best_single:.2f} times the best"
        f" single drafter ({single.drafter}). Fallback: {assignment.fallback_drafter}."
    )
    out.print("accept length = completion tokens / verify steps (with the bonus token); gain = assigned / none.")
    if not assignment.proven:
        out.print(
            f"The search was cut off: no choice can have more than {assignment.bound_tokens_per_second:.1f} tokens per"
            " second; fewer drafters or settings make it exact."
        )


def _speeds(expected: Any) -> tuple[str, str, str, str]:
    speeds = (
        expected.none_tokens_per_second,
        expected.best_single_tokens_per_second,
        expected.tokens_per_second,
    )
    return (*(f"{speed:.1f}" for speed in speeds), f"{expected.gain_over_none:.2f}")  # type: ignore[return-value]


def whole(text: str) -> int:
    """A whole number from 0 up, for argparse."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)


def num_bytes(text: str) -> int:
    """A number of bytes: 500000000, 500K, 500M or 2G (powers of 1024)."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    unit = units.get(text[-1:].upper(), 1)
    digits = text[:-1] if unit > 1 else text
    if not (digits.isascii() and digits.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes such as 500M")
    return int(digits) * unit


def weights(text: str) -> dict[str, float]:
    """task=weight,task=weight."""
    found = {}
    for name, value in _pairs(text, "TASK=WEIGHT"):
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if not 0 <= found[name] < math.inf:
            raise argparse.ArgumentTypeError(f"the weight of {name!r} is {value!r}, not a number from 0 up")
    return found


def sizes(text: str) -> dict[str, int]:
    """drafter=bytes,drafter=bytes."""
    return {name: num_bytes(value) for name, value in _pairs(text, "DRAFTER=BYTES")}


def _pairs(text: str, form: str) -> list[tuple[str, str]]:
    pairs = [part.partition("=") for part in text.split(",")]
    names = [name for name, _, _ in pairs]
    if not all(name and equals and value for name, equals, value in pairs) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not {form},... with every name once")
    return [(name, value) for name, _, value in pairs]
