from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.build.align import toy
from tests.support.threads import one_thread


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with target/, base/ and answers.jsonl."""
    folder = tmp_path_factory.mktemp("align")
    target = toy.write_target(folder / "target")
    toy.write_base(target, folder / "base")
    toy.write_answers(folder / "answers.jsonl", toy.answers(target, per_task=60))
    return folder
