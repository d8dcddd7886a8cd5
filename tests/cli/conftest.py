from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pool"))

from fake_pool import FakePool

from sglang_hetero_spec.cli import main


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def pool(tmp_path: Path) -> FakePool:
    """A pool without a router: a router of its own would have to be fitted first."""
    fake = FakePool(tmp_path)
    del fake.manifest["router"]
    fake.write()
    return fake


@pytest.fixture
def hetero_spec(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs `hetero-spec` in this process."""

    def run(*arguments: object) -> Ran:
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return run


PROMPTS = {
    "code": ("def add(a, b):", "import os and print the path", "class Stack: push and pop", "for i in range(10):"),
    "chat": ("Hello, how are you today?", "Tell me about your holiday", "What a lovely day", "Good morning, dear"),
}


@pytest.fixture(scope="session")
def router_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real router for the two tasks of the fake pool, fitted once."""
    from sglang_hetero_spec.router.fit import fit_router

    folder = tmp_path_factory.mktemp("fitted") / "router"
    pairs = [(f"{prompt} {number}", task) for task, texts in PROMPTS.items() for prompt in texts for number in range(6)]
    fit_router([prompt for prompt, _ in pairs], [task for _, task in pairs]).save(folder)
    return folder


@pytest.fixture
def routed_pool(tmp_path: Path, router_files: Path) -> FakePool:
    """A pool with a real router."""
    fake = FakePool(tmp_path)
    shutil.rmtree(fake.root / "router")
    shutil.copytree(router_files, fake.root / "router")
    return fake
