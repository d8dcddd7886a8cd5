"""`hetero-spec version`."""

from __future__ import annotations

import argparse
from importlib import metadata
from typing import Any

from sglang_hetero_spec import SGLANG_VERSION, __version__
from sglang_hetero_spec.commands.output import DONE, print_json


def add(subcommands: Any) -> None:
    parser = subcommands.add_parser("version", help="versions of this package and of SGLang")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    installed = installed_sglang()
    if args.json:
        print_json({"version": __version__, "sglang_supported": SGLANG_VERSION, "sglang_installed": installed})
    else:
        print(f"hetero-spec {__version__} (for SGLang {SGLANG_VERSION}; installed: {installed or 'none'})")
    return DONE


def installed_sglang() -> str | None:
    """The installed SGLang's version, without importing it; None if there is none."""
    try:
        return metadata.version("sglang")
    except metadata.PackageNotFoundError:
        return None
