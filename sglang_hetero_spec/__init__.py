"""HETERO for SGLang: a pool of drafters, each request served by the one that knows its task.

In Python, `from sglang_hetero_spec import Pool, build`: a checked pool, and everything that makes one.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
SGLANG_VERSION = "0.5.23"


def __getattr__(name: str) -> Any:
    """`Pool` on first use: SGLang imports this package in every process, and most need nothing of it."""
    if name == "Pool":
        from sglang_hetero_spec.pool import Pool

        return Pool
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
