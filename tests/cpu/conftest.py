"""The CPU tests are small: one thread is quickest, and other tests may run beside them."""

from __future__ import annotations

import pytest

from tests.support.threads import one_thread


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield
