"""The ledger of hooks: patches/sglang-<version>.toml must say what plugin.all_hooks() does, and SGLang's functions
must still be those that the hooks were written against."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_hetero_spec import SGLANG_VERSION
from sglang_hetero_spec.hooks import Hook

# A link to the checkout's patches/, which an installation turns into files.
LEDGER = Path(__file__).parent / "patches" / f"sglang-{SGLANG_VERSION}.toml"


@dataclass(frozen=True)
class LedgerEntry:
    """target: dotted path upstream; kind: before, after, around or replace; function: ours, dotted.

    sha256: of the upstream function's source, as inspect.getsource gives it.
    """

    target: str
    kind: str
    function: str
    why: str
    retire: str
    sha256: str


def read_ledger(path: Path = LEDGER) -> list[LedgerEntry]:
    content = tomllib.loads(path.read_text())
    return [LedgerEntry(**entry) for entry in content["hook"]]


def check_ledger() -> list[str]:
    """Every disagreement between hooks, ledger and the installed SGLang, one sentence each. Imports SGLang."""
    from sglang_hetero_spec.plugin import all_hooks

    try:
        entries = {entry.target: entry for entry in read_ledger()}
    except FileNotFoundError:
        return [f"the ledger {LEDGER} is missing: reinstall the package"]
    hooks = {hook.target: hook for hook in all_hooks()}
    problems = [f"the hook on {target} is not in the ledger" for target in sorted(hooks.keys() - entries.keys())]
    problems += [f"the ledger names {target}, which is not hooked" for target in sorted(entries.keys() - hooks.keys())]
    for target in sorted(hooks.keys() & entries.keys()):
        problems += _compare(hooks[target], entries[target])
    return problems


def _compare(hook: Hook, entry: LedgerEntry) -> list[str]:
    problems = []
    if (hook.kind, hook.function, hook.why, hook.retire) != (entry.kind, entry.function, entry.why, entry.retire):
        problems.append(f"the ledger's entry for {hook.target} differs from the hook in the code")
    try:
        actual = source_sha256(hook.target)
    except (ImportError, AttributeError, TypeError, OSError):
        return [*problems, f"{hook.target} does not exist in this SGLang"]
    if actual != entry.sha256:
        problems.append(f"{hook.target} has changed in this SGLang: read it again, then update the ledger")
    return problems


def source_sha256(target: str) -> str:
    """Of the source of the upstream function, hooked or not."""
    return hashlib.sha256(inspect.getsource(inspect.unwrap(_locate(target))).encode()).hexdigest()


def _locate(target: str) -> Any:
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            found = getattr(found, name)
        return found
    raise ImportError(target)


def render_ledger() -> str:
    """The ledger's text for the hooks and the SGLang at hand: `python -m sglang_hetero_spec.ledger > patches/...`."""
    from sglang_hetero_spec.plugin import all_hooks

    lines = [
        f"# Every place where this package reaches into SGLang {SGLANG_VERSION} beyond its public registry.",
        "# Made by `python -m sglang_hetero_spec.ledger`; read the upstream function again before you make it anew.",
    ]
    for hook in sorted(all_hooks(), key=lambda hook: hook.target):
        lines += ["", "[[hook]]"]
        for key in ("target", "kind", "function", "why", "retire"):
            lines.append(f'{key} = "{getattr(hook, key)}"')
        lines.append(f'sha256 = "{source_sha256(hook.target)}"')
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from sglang_hetero_spec import cpu

    cpu.enable()
    sys.stdout.write(render_ledger())
