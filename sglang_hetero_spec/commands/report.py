"""`hetero-spec report`: one HTML page on a build, readable offline."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sglang_hetero_spec.commands.output import DONE, print_json, say

if TYPE_CHECKING:
    from sglang_hetero_spec.build.report import WrittenReport


def add(subcommands: Any) -> None:
    parser = subcommands.add_parser(
        "report",
        help="write what a build found, and how good it is, as one HTML page",
        description="Makes report.html from the files of a build: tasks, drafters, learning curves, speedups, rejects."
        " Only tasks.json must be there; the page says what else is missing. It needs no network.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="the build's folder, or a pool")
    parser.add_argument("--out", metavar="FILE", help="the page to write (default: report.html in the folder)")
    parser.add_argument("--json", action="store_true", help="print one JSON object: what was written, from what")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from sglang_hetero_spec.build.report import write_report

    written = write_report(args.folder, args.out, say)
    if args.json:
        print_json(as_dict(written))
    else:
        print(f"Wrote {written.path} ({written.num_bytes / 1000:.0f} kB); open it in a browser.")
    return DONE


def as_dict(written: WrittenReport) -> dict[str, Any]:
    """The result for machines."""
    files = [{"name": item.name, "bytes": item.num_bytes, "sha256": item.sha256} for item in written.inputs.files]
    return {"report": str(written.path), "bytes": written.num_bytes, "made_from": files}
