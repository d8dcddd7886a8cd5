"""SGLang in this process, imported once for the tests that need it (about 10 s)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cpu_engine import sglang_in_this_process
from tests.support.threads import one_thread


@pytest.fixture(scope="package")
def sglang() -> Iterator[None]:
    """`import sglang` works inside the tests that ask for this; module-level imports would run at collection."""
    with sglang_in_this_process():
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield
