"""What a request says to be served by a drafter, or by two."""

from __future__ import annotations

from typing import Any


def served_by(drafter: str) -> dict[str, Any]:
    """custom_params. drafter: a name, or "a+b" for two."""
    names = drafter.split("+")
    return {"hetero": {"drafter": drafter} if len(names) == 1 else {"drafters": names}}
