"""`hetero-spec route`: which drafter a prompt gets, why, how sure, how long it took."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from sglang_hetero_spec.commands.output import DONE, UsageError, console, print_json


def add(subcommands: Any) -> None:
    parser = subcommands.add_parser("route", help="which drafter a prompt gets, and why")
    parser.add_argument("pool", metavar="POOL", help="the pool's folder")
    parser.add_argument("prompts", metavar="PROMPT", nargs="*", help="prompts to route")
    parser.add_argument(
        "--file",
        metavar="F",
        help='more prompts: one a line, or (*.jsonl) one object with "prompt" a line; - is standard input',
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    prompts = [*args.prompts, *(read_prompts(args.file) if args.file else ())]
    if not prompts:
        raise UsageError("there is no prompt to route; give one, or --file F.")
    from sglang_hetero_spec.commands.checked import checked_pool
    from sglang_hetero_spec.router.explain import route_prompts

    rows = route_prompts(checked_pool(args.pool), prompts)
    if args.json:
        for row in rows:
            print_json(row)
    else:
        _print_table(list(rows))
    return DONE


def read_prompts(name: str) -> Iterator[str]:
    """The prompts of a file, empty lines left out; UsageError in one sentence."""
    try:
        text = _read(name)
    except OSError as error:
        raise UsageError(f"--file {name} cannot be read ({error.strerror}); check the path.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"--file {name} is not UTF-8 (byte {error.start}); save it again as UTF-8.") from None
    # Not splitlines(): a prompt may hold a form feed or a Unicode line separator.
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if line.strip():
            yield _json_prompt(name, number, line) if name.endswith(".jsonl") else line


def _read(name: str) -> str:
    if name == "-":
        return sys.stdin.buffer.read().decode("utf-8")
    with open(name, "rb") as file:
        return file.read().decode("utf-8")


def _json_prompt(name: str, number: int, line: str) -> str:
    try:
        prompt = json.loads(line)["prompt"]
    except (ValueError, KeyError, TypeError, RecursionError):
        prompt = None
    if not isinstance(prompt, str):
        raise UsageError(f'--file {name}, line {number}, is not an object with a string "prompt"; correct it.')
    return prompt


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("prompt", "task", "drafter", "confidence", "source", "spoke for it", "time")
    for row in rows:
        confidence = "-" if row["confidence"] is None else f"{row['confidence']:.3f}"
        terms = ", ".join(repr(term["term"]) for term in row["top_terms"][:3])
        cells = (_short(row["prompt"]), row["task"] or "-", _drafters(row), confidence, row["source"], terms)
        table.add_row(*map(escape, cells), f"{row['microseconds']:.0f} us")
    console().print(table)


def _drafters(row: dict[str, Any]) -> str:
    return " + ".join(row.get("drafters", [row["drafter"]]))


def _short(text: str, limit: int = 48) -> str:
    """One printable line of a prompt."""
    line = "".join(c if c.isprintable() else " " for c in text[: limit + 1])
    return line if len(line) <= limit else line[: limit - 3] + "..."
