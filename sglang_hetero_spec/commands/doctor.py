"""`hetero-spec doctor`: is this SGLang supported, is the plugin seen, what would fail."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from sglang_hetero_spec.commands.output import DONE, FAILED, console, print_json, say

if TYPE_CHECKING:
    from sglang_hetero_spec.doctor import Check

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def add(subcommands: Any) -> None:
    parser = subcommands.add_parser("doctor", help="what is right and wrong with this installation")
    parser.add_argument("pool", metavar="POOL", nargs="?", help="also check this pool")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from sglang_hetero_spec.doctor import examine

    if sys.stderr.isatty():
        say("Looking into SGLang, about 20 s ...")
    checks = examine(args.pool)
    failed = [check for check in checks if check.status == "fail"]
    if args.json:
        print_json({"ok": not failed, "checks": [check.as_dict() for check in checks]})
    else:
        _print_table(checks)
    return FAILED if failed else DONE


def _print_table(checks: list[Check]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("check", "", "found", "what to do")
    for check in checks:
        colour = _COLOURS[check.status]
        status = f"[{colour}]{check.status}[/]"
        table.add_row(escape(check.name), status, escape(check.detail), escape(check.remedy))
    out = console()
    out.print(table)
    counts = {status: sum(check.status == status for check in checks) for status in _COLOURS}
    out.print(", ".join(f"{count} {status}" for status, count in counts.items()) + ".")
