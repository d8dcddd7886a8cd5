"""SGLang in this process, imported once for the tests that need it (about 10 s)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.support.cpu_engine import sglang_in_this_process


@pytest.fixture(scope="package")
def sglang() -> Iterator[None]:
    """`import sglang` works inside the tests that ask for this; module-level imports would run at collection."""
    with sglang_in_this_process():
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
