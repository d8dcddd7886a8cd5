"""SGLang in the tests' own process, for one folder after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sglang_hetero_spec import cpu

# What `cpu.enable()` sets; it may be called once in a process that has imported SGLang since.
_settings: dict[str, str] = {}


@contextmanager
def sglang_in_this_process() -> Iterator[None]:
    """`import sglang` works inside, about 10 s the first time. Outside the environment is as it was: what other tests
    start would inherit it. Our ops stay."""
    before = dict(os.environ)
    if _settings:
        os.environ.update(_settings)
    else:
        cpu.enable()
        _settings.update({name: value for name, value in os.environ.items() if before.get(name) != value})
    import sglang.srt.speculative.eagle_utils  # noqa: F401

    yield
    for name in _settings:
        if name in before:
            os.environ[name] = before[name]
        else:
            os.environ.pop(name, None)
