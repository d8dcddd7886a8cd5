"""`hetero-spec partition`: the tasks in a log of prompts; the work is in `sglang_hetero_spec.build.partition`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sglang_hetero_spec.commands.demo import positive
from sglang_hetero_spec.commands.output import DONE, console, print_json, say

if TYPE_CHECKING:
    from sglang_hetero_spec.build.partition import Partition

_SHOWN_REJECTS = 5


def add(subcommands: Any) -> None:
    parser = subcommands.add_parser(
        "partition",
        help="find the tasks in a log of prompts",
        description='Reads a log (JSONL with "prompt", "messages" or "turns", SGLang\'s request log, or plain text'
        " with one prompt a line), finds its tasks, and writes prompts.jsonl, tasks.json, partition.json,"
        " duplicates.jsonl and rejects.jsonl.",
    )
    parser.add_argument("--prompts", required=True, metavar="FILE", help="the log; .gz is read too")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="the same gives the same (default: 0)")
    parser.add_argument("--answers", metavar="FILE", help="answers.jsonl of `regenerate`: answers join the prompts")
    parser.add_argument("--n-tasks", type=positive, metavar="N", help="as many tasks (default: it chooses)")
    parser.add_argument("--min-tasks", type=positive, default=1, metavar="N", help="at least (default: 1)")
    parser.add_argument("--max-tasks", type=positive, default=16, metavar="N", help="at most (default: 16)")
    parser.add_argument(
        "--embedder",
        metavar="PATH",
        help="folder of a sentence-transformers model (default: TF-IDF and truncated SVD, no model needed)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from sglang_hetero_spec.build.partition import Partitioner, partition_log

    estimator = Partitioner(
        args.n_tasks,
        min_tasks=args.min_tasks,
        max_tasks=args.max_tasks,
        embedder=args.embedder,
        random_state=args.seed,
    )
    found = partition_log(args.prompts, args.out, answers=args.answers, estimator=estimator, progress=_progress)
    _say_what_was_left_out(found, args.out)
    if args.json:
        print_json({"out": args.out, **found.summary(), "tasks": [_row(task) for task in found.tasks]})
    else:
        _print_table(found, args.out)
    return DONE


def seed(text: str) -> int:
    """A whole number from 0 to 2**32 - 1, for argparse."""
    number = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= number < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 4294967295")
    return number


def _progress(steps: Iterable[int]) -> Iterable[int]:
    from tqdm import tqdm

    return tqdm(steps, desc="choosing the number of tasks", leave=False, disable=None)


def _say_what_was_left_out(found: Partition, out: str) -> None:
    for reject in found.rejects[:_SHOWN_REJECTS]:
        say(f"line {reject.line}: {reject.reason}")
    if found.rejects:
        noun = "line was" if len(found.rejects) == 1 else "lines were"
        say(f"{len(found.rejects)} bad {noun} left out; see {out}/rejects.jsonl.")
    if len(found.tasks) == 1:
        say("The prompts form one task: one drafter serves them all, and no router is needed.")


def _row(task: Any) -> dict[str, Any]:
    return {
        "id": task.id,
        "name": task.name,
        "size": task.size,
        "requests": task.requests,
        "top_terms": task.top_terms,
    }


def _print_table(found: Partition, out: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    counts = found.summary()
    table = Table("task", "prompts", "requests", "terms")
    for task in found.tasks:
        table.add_row(escape(task.id), str(task.size), str(task.requests), escape(", ".join(task.top_terms)))
    console().print(table)
    noun = "task" if counts["n_tasks"] == 1 else "tasks"
    print(
        f"{counts['n_tasks']} {noun} in {counts['prompts']} prompts; outliers: {counts['outliers']}, exact duplicates:"
        f" {counts['exact_duplicates']}, near duplicates: {counts['near_duplicates']}, bad lines: {counts['rejects']}."
        f" Written to {out}."
    )
    if found.adjusted_rand_index is not None:
        print(f"Adjusted Rand index against the log's own labels: {found.adjusted_rand_index:.3f}")
