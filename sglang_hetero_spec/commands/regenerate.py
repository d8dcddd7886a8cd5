"""`hetero-spec regenerate`: the target answers the prompts; the work is in `sglang_hetero_spec.build.regenerate`."""

from __future__ import annotations

import argparse
import math
from typing import Any

from sglang_hetero_spec.commands.demo import positive
from sglang_hetero_spec.commands.output import DONE, FAILED, UsageError, print_json, say


def add(subcommands: Any) -> None:
    parser = subcommands.add_parser(
        "regenerate",
        help="have the target answer the prompts (resumes where it was left)",
        description="The target answers every prompt of a prompts.jsonl, through SGLang's offline engine or running"
        " servers. Stopped at any moment, the same command goes on from there.",
        epilog="Flags of SGLang for the engine go behind `--`, such as: -- --mem-fraction-static 0.8 --tp-size 2",
    )
    parser.add_argument("--target", required=True, metavar="T", help="the target's checkpoint (its tokenizer is used)")
    parser.add_argument("--prompts", required=True, metavar="FILE", help="prompts.jsonl, as `partition` wrote it")
    parser.add_argument("--out", required=True, metavar="FILE", help="answers.jsonl to write")
    parser.add_argument(
        "--url",
        metavar="URL[,URL...]",
        help="running SGLang servers of the target, http://host:port; they share the prompts (default: an engine"
        " is started here)",
    )
    parser.add_argument(
        "--temperature", type=temperature, default=0.0, metavar="X", help="0 is greedy (default); above it samples"
    )
    parser.add_argument(
        "--max-new-tokens", type=positive, default=512, metavar="N", help="longest answer, in tokens (default: 512)"
    )
    parser.add_argument(
        "--batch", type=positive, default=32, metavar="N", help="prompts in flight, at each server (default: 32)"
    )
    parser.add_argument(
        "--seed", type=whole, default=0, metavar="N", help="of sampling; each prompt has its own from it (default: 0)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("flags", nargs="*", metavar="-- SGLANG-FLAGS", help="for the engine")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.flags and not args.flags[0].startswith("-"):
        raise UsageError(f"`{args.flags[0]}` is one argument too many; flags for SGLang go behind `--`.")
    if args.flags and args.url is not None:
        raise UsageError("Flags for SGLang do not reach a running server; leave out --url or the flags.")
    from sglang_hetero_spec.build.regenerate import Options, RegenerateStopped, regenerate

    options = Options(
        url=args.url,
        temperature=args.temperature,
        max_new_tokens=args.max_new_tokens,
        batch=args.batch,
        seed=args.seed,
        flags=tuple(args.flags),
    )
    try:
        found = regenerate(args.target, args.prompts, args.out, options)
    except RegenerateStopped as stop:
        say(f"hetero-spec: {stop}")
        return FAILED
    if args.json:
        print_json({**vars(found), "out": str(found.out), "rejects": None if not found.rejects else str(found.rejects)})
        return DONE
    earlier = f" ({found.kept} of them from earlier runs)" if found.kept else ""
    print(f"{found.answered} answers with {found.completion_tokens} tokens in {found.out}{earlier}")
    if found.rejects is not None:
        print(f"{found.rejected} of {found.prompts} prompts have none; why is in {found.rejects}")
    return DONE


def temperature(text: str) -> float:
    """0, or a finite number above it, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    # SGLang takes anything below 1e-6 for greedy.
    if not (value == 0 or (value >= 1e-6 and math.isfinite(value))):
        raise argparse.ArgumentTypeError(f"{text!r} is not a temperature; give 0 or a number above it")
    return value


def whole(text: str) -> int:
    """A whole number from 0 to 2**63 - 1, for argparse."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
    if not 0 <= number < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2**63 - 1")
    return number
