"""SGLang in this process, imported once for the tests that need it (about 10 s)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sglang_hetero_spec import cpu


@pytest.fixture(scope="package")
def sglang() -> Iterator[None]:
    """`import sglang` works inside the tests that ask for this; module-level imports would run at collection.

    Behind this folder the environment is as it was: what tests start there would inherit it.
    """
    cpu.enable()
    import sglang.srt.speculative.eagle_utils  # noqa: F401

    yield
    cpu.disable()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
