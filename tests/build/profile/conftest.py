"""A target and drafters on disk, real enough for every check that loads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from sglang_hetero_spec.build.prompts import plain_prompt, write_prompts
from tests.support.tiny_models import TinyShape, write_tiny_model


@dataclass(frozen=True)
class Files:
    target: Path
    drafters: Path
    prompts: Path


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Drafters `a` and `b`; five prompts of task `t0`, two of `t1`, an outlier."""
    folder = tmp_path_factory.mktemp("profile")
    shape = TinyShape(hidden=32, layers=1, max_len=256)
    target = write_tiny_model(folder / "target", seed=1, shape=shape)
    for seed, name in enumerate("ab", start=2):
        write_tiny_model(folder / "drafters" / name, seed=seed, shape=shape)
    prompts = [plain_prompt(f"say {number}", task="t1" if number > 4 else "t0") for number in range(7)]
    write_prompts(folder / "prompts.jsonl", [*prompts, plain_prompt("nobody's")])
    return Files(target, folder / "drafters", folder / "prompts.jsonl")
