"""What a user can do wrong, said in one sentence."""

from __future__ import annotations

import sys


class HeteroError(ValueError):
    """A start-up that HETERO refuses. The message says what is wrong, where, and what to do."""


def first_line(error: Exception) -> str:
    """Of what somebody else's error says, or its kind where it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]


def refuse(error: ValueError) -> None:
    """End a start-up: one line and exit code 2 where SGLang's own commands run, `error` itself in a library."""
    main_module = sys.modules.get("__main__")
    main_spec = getattr(main_module, "__spec__", None)
    is_command = main_spec is not None and main_spec.name.split(".")[0] == "sglang"
    if not is_command and sys.argv and sys.argv[0].endswith(("/sglang", "/hetero-spec")):
        is_command = True
    if is_command:
        print(f"hetero-spec: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2)
    raise error
