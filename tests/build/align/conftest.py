from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.build.align import toy


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with target/, base/ and answers.jsonl."""
    folder = tmp_path_factory.mktemp("align")
    target = toy.write_target(folder / "target")
    toy.write_base(target, folder / "base")
    toy.write_answers(folder / "answers.jsonl", toy.answers(target, per_task=60))
    return folder
