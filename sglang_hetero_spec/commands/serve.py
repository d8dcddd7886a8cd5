"""`hetero-spec serve`: SGLang's server with SGLang's flags, also where there is no CUDA."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from sglang_hetero_spec.commands.output import UsageError, say

ALGORITHM = "HETERO"
USAGE = """\
usage: hetero-spec serve SGLANG-OPTIONS...

The same as `python -m sglang.launch_server SGLANG-OPTIONS...`, with two additions: a pool is checked before
any model loads, and where there is no CUDA the CPU engine of this package is set up (with --device cpu).

  hetero-spec serve --model-path TARGET --speculative-algorithm HETERO --speculative-draft-model-path POOL

SGLang's own options follow.
"""


def add(subcommands: Any) -> None:
    """For the list of commands only: `serve` has SGLang's options, `cli` hands them over unparsed."""
    subcommands.add_parser("serve", help="SGLang's server with the same flags, also without a GPU", add_help=False)


def run(arguments: Sequence[str]) -> NoReturn:
    """Check the pool, then become SGLang's server: this process is replaced, signals are SGLang's."""
    wants_help = "-h" in arguments or "--help" in arguments
    options = parse(arguments)
    if wants_help:
        print(USAGE, flush=True)
    elif (options.speculative_algorithm or "").upper() == ALGORITHM:
        check_pool(options)
    on_cpu = enable_cpu_engine(options.device)
    command = [sys.executable, "-m", "sglang.launch_server", *arguments]
    if on_cpu and options.device is None and not wants_help:
        command += ["--device", "cpu"]
        say("hetero-spec: no CUDA here, so SGLang runs on the CPU engine of this package (--device cpu).")
    os.execv(command[0], command)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The few options of SGLang that matter here; all others, and all errors, are left to SGLang."""
    parser = _Quiet(add_help=False)
    parser.add_argument("--config")
    parser.add_argument("--device")
    parser.add_argument("--model-path", "--model")
    parser.add_argument("--tokenizer-path")
    parser.add_argument("--speculative-algorithm")
    parser.add_argument("--speculative-draft-model-path", "--speculative-draft-model")
    try:
        options = parser.parse_known_args(list(arguments))[0]
        return parser.parse_known_args([*_from_config(options.config), *arguments])[0] if options.config else options
    except _ParseError:
        return parser.parse_known_args([])[0]


def check_pool(options: argparse.Namespace) -> None:
    """PoolError or UsageError if HETERO is asked for and its pool cannot be served."""
    from sglang_hetero_spec.commands.checked import checked_pool

    path = options.speculative_draft_model_path
    if path is None:
        raise UsageError(
            f"--speculative-algorithm {ALGORITHM} needs a pool; add --speculative-draft-model-path POOL, a"
            " folder with pool.json."
        )
    checked_pool(path, options.tokenizer_path or options.model_path)


def enable_cpu_engine(device: str | None) -> bool:
    """Set up the CPU engine where it is needed and wanted; True if this server will run on the CPU engine."""
    if device not in (None, "cpu"):
        return False
    from sglang_hetero_spec import cpu

    return cpu.enable()


def _from_config(path: str) -> list[str]:
    """SGLang's YAML of options as arguments; what cannot be read is left to SGLang to complain about."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return []
    if not isinstance(values, dict):
        return []
    return [part for key, value in values.items() for part in (f"--{str(key).replace('_', '-')}", str(value))]


class _ParseError(Exception):
    pass


class _Quiet(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _ParseError(message)
