from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sglang_hetero_spec.build.prompts import Message, Prompt, chat_prompt, plain_prompt, write_prompts
from sglang_hetero_spec.build.regenerate import Options, Regenerated, regenerate
from sglang_hetero_spec.build.regenerate.run import BackendMaker
from sglang_hetero_spec.build.regenerate.server_backend import ServerBackend, parse_urls

TARGET = Path(__file__).resolve().parents[3] / "sglang_hetero_spec/demo/assets/target"
QUICK = (0.05, 0.05, 0.05)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from sglang_hetero_spec.build.regenerate.target import load_tokenizer

    return load_tokenizer(str(TARGET))


@pytest.fixture(scope="session")
def prompts() -> tuple[Prompt, ...]:
    """Twenty: plain ones of two tasks, outliers, and chats."""
    plain = [plain_prompt(f"Prompt number {i}: add {i} and {i * i}.", task=f"task{i % 2}") for i in range(16)]
    outliers = [plain_prompt(f"Out of place {i}") for i in range(2)]
    turns = [(Message("user", f"Hello {i}"), Message("assistant", "Yes?"), Message("user", "Go on")) for i in range(2)]
    chats = [chat_prompt(messages, task="chat") for messages in turns]
    return (*plain, *outliers, *chats)


@pytest.fixture
def prompts_file(tmp_path: Path, prompts: tuple[Prompt, ...]) -> Path:
    path = tmp_path / "prompts.jsonl"
    write_prompts(path, prompts)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def quick_retries(options: Options, target: str, out: Path, kv_tokens: int | None) -> ServerBackend:
    assert options.url is not None
    return ServerBackend(parse_urls(options.url), options.batch, retry_seconds=QUICK)


@pytest.fixture
def ask(out: Path) -> Callable[..., Regenerated]:
    """`regenerate` into `out` with pauses between retries that a test can wait for; options by keyword."""

    def call(prompts: Any, make_backend: BackendMaker = quick_retries, target: Path = TARGET, **options: Any) -> Any:
        return regenerate(target, prompts, out, Options(**options), make_backend=make_backend)

    return call


@pytest.fixture
def target_copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TARGET, tmp_path / "target"))
