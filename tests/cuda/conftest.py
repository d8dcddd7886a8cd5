"""SGLang in this process, for the tests that ask for it."""

from tests.worker.conftest import sglang

__all__ = ["sglang"]
