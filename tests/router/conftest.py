from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sglang_hetero_spec.pool import DrafterSpec, Pool, RouterSpec, TargetSpec, TaskSpec
from sglang_hetero_spec.router.fit import FittedRouter, fit_router
from tests.router.toy import DRAFTER_OF_TASK, toy_prompts


@pytest.fixture(scope="session")
def fitted() -> FittedRouter:
    return fit_router(*toy_prompts(range(40)))


@pytest.fixture(scope="session")
def saved(fitted: FittedRouter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("router")
    fitted.save(folder)
    return folder


@pytest.fixture
def router_dir(saved: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(saved, tmp_path / "router"))


@pytest.fixture(scope="session")
def pool(saved: Path) -> Pool:
    return make_pool(saved)


def make_pool(
    router: Path | None, min_confidence: float = 0.5, second_below: float | None = None, idle: tuple[str, ...] = ()
) -> Pool:
    """idle: the drafters that draft nothing."""

    def drafter(name: str) -> DrafterSpec:
        if name in idle:
            return DrafterSpec(name, "none", None, "shared", 0, 1, 1)
        return DrafterSpec(name, "standalone", Path("/pool") / name, "shared", 3, 1, 4)

    return Pool(
        root=Path("/pool"),
        target=TargetSpec(),
        drafters=tuple(drafter(name) for name in ("coder", "counter", "general")),
        tasks=tuple(TaskSpec(task, task, name) for task, name in DRAFTER_OF_TASK.items()),
        fallback_drafter="general",
        router=None if router is None else RouterSpec(router, min_confidence, second_below),
        merged_draft_tokens=8,
    )
