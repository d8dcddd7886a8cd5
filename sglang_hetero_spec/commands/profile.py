"""`hetero-spec profile`: every candidate drafter on every task, measured; the work is in `build.profile.measure`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sglang_hetero_spec.commands.demo import positive, positives
from sglang_hetero_spec.commands.output import DONE, FAILED, UsageError, console, print_json, say

if TYPE_CHECKING:
    from sglang_hetero_spec.build.profile.candidates import Candidate
    from sglang_hetero_spec.build.profile.measure import Profiled


def add(subcommands: Any) -> None:
    parser = subcommands.add_parser(
        "profile",
        help="measure drafters on the tasks, in a real server (resumes where it was left)",
        description="Serves held-out prompts of every task with every candidate drafter, and with none, in one SGLang"
        " server, and writes what was counted. Stopped at any moment, the same command goes on from there.",
        epilog="Flags of SGLang for the server go behind `--`, such as: -- --mem-fraction-static 0.8 --tp-size 2",
    )
    parser.add_argument("--target", required=True, metavar="T", help="the target's checkpoint")
    parser.add_argument(
        "--candidates", required=True, nargs="+", metavar="C",
        help="checkpoints (FOLDER or NAME=FOLDER), folders of checkpoints, or pools",
    )  # fmt: skip
    parser.add_argument("--prompts", required=True, metavar="FILE", help="held-out prompts.jsonl with their tasks")
    parser.add_argument("--out", required=True, metavar="FILE", help="profile.jsonl to write")
    parser.add_argument(
        "--concurrency", type=positives, default=(1, 4, 16), metavar="N,...", help="requests in flight (default 1,4,16)"
    )
    parser.add_argument(
        "--num-prompts", type=positive, default=16, metavar="N", help="prompts of each task (default: 16)"
    )
    parser.add_argument(
        "--max-new-tokens", type=positive, default=128, metavar="N", help="longest answer, in tokens (default: 128)"
    )
    parser.add_argument(
        "--num-steps", type=numbers, default=(5,), metavar="N,...",
        help="draft steps of candidates that are checkpoints; several are several shapes (default: 5). Under `slem`,"
        " a drafter takes as many of its own tokens as this many of the target's need",
    )  # fmt: skip
    parser.add_argument("--topk", type=numbers, default=(1,), metavar="K,...", help="1 is a chain (default)")
    parser.add_argument(
        "--num-draft-tokens", type=numbers, metavar="D,...", help="nodes of a tree, root included (chains need none)"
    )
    parser.add_argument("--passes", type=positive, default=2, metavar="N", help="measurements of each (default: 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("flags", nargs="*", metavar="-- SGLANG-FLAGS", help="for the server")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.flags and not args.flags[0].startswith("-"):
        raise UsageError(f"`{args.flags[0]}` is one argument too many; flags for SGLang go behind `--`.")
    from sglang_hetero_spec.build.profile.candidates import parse_shapes
    from sglang_hetero_spec.build.profile.measure import ProfileOptions, profile, server_log
    from sglang_hetero_spec.serving.errors import ServingError
    from sglang_hetero_spec.serving.interrupt import terminated_like_interrupted

    options = ProfileOptions(
        concurrency=args.concurrency,
        num_prompts=args.num_prompts,
        max_new_tokens=args.max_new_tokens,
        shapes=parse_shapes(args.num_steps, args.topk, args.num_draft_tokens),
        passes=args.passes,
        flags=tuple(args.flags),
    )
    try:
        with terminated_like_interrupted():
            found = profile(args.target, args.candidates, args.prompts, args.out, options)
    except ServingError as error:
        log = server_log(Path(args.out))
        said = f" The server's log is {log}." if log.exists() else ""
        say(f"hetero-spec: {error} What was measured is kept: the same command goes on from there.{said}")
        return FAILED
    if args.json:
        print_json(_as_dict(found))
        return DONE
    _print(found)
    for note in found.notes:
        say(note)
    return DONE


def _path(candidate: Candidate) -> str | None:
    return None if candidate.path is None else str(candidate.path)


def _as_dict(found: Profiled) -> dict[str, Any]:
    return {
        "out": str(found.out),
        "records": len(found.records),
        "kept": found.kept,
        "seconds": found.seconds,
        "left_out": [
            {"drafter": item.candidate.drafter, "path": _path(item.candidate), "reason": item.reason}
            for item in found.left_out
        ],
        "notes": list(found.notes),
    }


def _print(found: Profiled) -> None:
    from rich.markup import escape
    from rich.table import Table

    from sglang_hetero_spec.build.profile.records import NO_SETTINGS, merged

    records = merged(found.records)
    busiest = max(record.concurrency for record in records)
    at_busiest = [record for record in records if record.concurrency == busiest]
    tasks = list(dict.fromkeys(record.task for record in at_busiest))
    table = Table(title=f"Accept length, and tokens per second with {busiest} in flight", title_justify="left")
    table.add_column("drafter")
    table.add_column("steps/topk/tokens")
    for task in tasks:
        table.add_column(escape(task), justify="right")
    modes = {(record.drafter, record.settings): record.vocab for record in records}
    for drafter, settings in dict.fromkeys((record.drafter, record.settings) for record in at_busiest):
        mine = {r.task: r for r in at_busiest if (r.drafter, r.settings) == (drafter, settings)}
        cells = [f"{mine[t].accept_length:.2f}  {mine[t].tokens_per_second:.0f}/s" if t in mine else "-" for t in tasks]
        mode = modes[drafter, settings]
        name = drafter if mode == "shared" else f"{drafter} ({mode})"
        table.add_row(name, "-" if settings == NO_SETTINGS else str(settings), *cells)
    out = console()
    out.print(table)
    out.print("accept length = completion tokens / verify steps (with the bonus token).")
    out.print(escape(f"{len(found.records)} measurements in {found.out}, {found.seconds / 60:.1f} minutes"))


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers above 0 with commas between them, for argparse."""
    return tuple(positive(part) for part in text.split(","))
