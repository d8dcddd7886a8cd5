"""`hetero-spec ngram-corpus`: what an n-gram drafter knows from the start."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sglang_hetero_spec.commands.output import DONE, UsageError, print_json, say


def add(subcommands: Any) -> None:
    parser = subcommands.add_parser(
        "ngram-corpus",
        help="write the corpus that an n-gram drafter begins with",
        description="Writes corpus.safetensors into a folder, for the `path` of a drafter of kind `ngram`. It may be"
        " left out: such a drafter learns from every prompt and answer that it serves.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--answers", metavar="F", type=Path, help="answers.jsonl of `regenerate`")
    source.add_argument(
        "--texts", metavar="F", type=Path, nargs="+", help="UTF-8 text files, for the tokens of --target"
    )
    parser.add_argument("--task", metavar="ID", help="of --answers only this task's (default: all)")
    parser.add_argument("--target", metavar="T", help="the target: a folder, or a name on the hub")
    parser.add_argument("--out", metavar="DIR", required=True, type=Path, help="folder for corpus.safetensors")
    parser.add_argument(
        "--max-tokens",
        metavar="N",
        type=int,
        default=1 << 20,
        help="refuse more (default: 1048576, the usual capacity)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from sglang_hetero_spec.build.ngram_corpus import answer_texts, file_texts, make_corpus

    if args.texts is not None and (args.target is None or args.task is not None):
        raise UsageError("--texts needs --target for its tokens, and knows no --task; correct the flags.")
    if args.texts is None:
        texts = answer_texts(args.answers, args.task)
    else:
        texts = file_texts(args.texts, args.target, args.max_tokens)
    made = make_corpus(args.out, texts, args.max_tokens, args.target)
    if args.json:
        print_json({
            "path": str(made.path), "texts": made.num_texts, "tokens": made.num_tokens, "capacity": made.capacity
        })  # fmt: skip
    else:
        say(f"{made.path}: {made.num_texts:,} texts, {made.num_tokens:,} tokens.")
    return DONE
