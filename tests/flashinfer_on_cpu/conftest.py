"""For the checks: SGLang and FlashInfer in this process, `cuda` being the CPU. test_on_cpu.py starts the process."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

STARTED = "SGLANG_HETERO_SPEC_FLASHINFER_ON_CPU"

if os.environ.get(STARTED):
    from sglang_hetero_spec import cpu

    cpu.enable()

    from tests.flashinfer_on_cpu.on_cpu import OnCpu, install

    install()

    @pytest.fixture(autouse=True, scope="session")
    def _on_cpu() -> Iterator[None]:
        with OnCpu():
            yield
