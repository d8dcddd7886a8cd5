"""The command line `hetero-spec`: which command, what exit code. Each command is a file in `commands/`.

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from sglang_hetero_spec import __version__
from sglang_hetero_spec.commands import (
    align,
    assign,
    bench,
    build,
    demo,
    doctor,
    fit_router,
    inspect,
    ngram_corpus,
    partition,
    profile,
    regenerate,
    report,
    route,
    serve,
    version,
)
from sglang_hetero_spec.commands.output import (
    BAD_INPUT,
    BROKEN_PIPE,
    DONE,
    FAILED,
    INTERRUPTED,
    UsageError,
    say,
)

COMMANDS = (
    demo, build, partition, regenerate, align, ngram_corpus, profile, assign, fit_router, report,
    inspect, route, bench, doctor, serve, version,
)  # fmt: skip
DEBUG_VARIABLE = "HETERO_SPEC_DEBUG"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; never shows a traceback (unless HETERO_SPEC_DEBUG is set)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a prompt may hold what the terminal cannot show
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse: --help, --version, bad usage
        return stop.code if isinstance(stop.code, int) else DONE
    except KeyboardInterrupt:
        say("hetero-spec: interrupted.")
        return INTERRUPTED
    except BrokenPipeError:
        # Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        return _report(error)


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["serve"]:
        serve.run(arguments[1:])
    parser = build_parser()
    if not arguments:
        parser.print_help()
        return BAD_INPUT
    args = parser.parse_args(arguments)
    return args.run(args)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; `args.run` is the command's function."""
    parser = _Parser(
        prog="hetero-spec",
        description="HETERO for SGLang: a pool of drafters in one server, each request served by the one that"
        " knows its task, output exactly the target's.",
        epilog="Start with `hetero-spec demo`. Exit codes: 0 done, 1 failed, 2 bad input.",
    )
    parser.add_argument("--version", action="version", version=f"hetero-spec {__version__}")
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="command")
    for command in COMMANDS:
        command.add(subcommands)
    return parser


def _report(error: Exception) -> int:
    """One line on stderr, and the exit code: 2 for bad input, 1 for everything else."""
    from sglang_hetero_spec.cpu import CpuEngineError
    from sglang_hetero_spec.errors import HeteroError
    from sglang_hetero_spec.pool import PoolError

    if isinstance(error, (PoolError, HeteroError, UsageError)):
        say(f"hetero-spec: {error}")
        return BAD_INPUT
    first_line = (str(error).strip().splitlines() or ["no message"])[0]
    if isinstance(error, CpuEngineError):
        say(f"hetero-spec: {first_line}")
    else:
        say(
            f"hetero-spec: failed with {type(error).__name__}: {first_line} (set {DEBUG_VARIABLE}=1 to see"
            " where; `hetero-spec doctor` checks the installation)"
        )
    return FAILED


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        say(f"hetero-spec: {message}; `{self.prog} --help` shows the usage.")
        raise SystemExit(BAD_INPUT)


if __name__ == "__main__":
    sys.exit(main())
