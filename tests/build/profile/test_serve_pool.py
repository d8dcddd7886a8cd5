"""A pool measured as it is served: each task alone, and mixed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sglang_hetero_spec.build.profile.measure import ProfileOptions
from sglang_hetero_spec.build.profile.records import ProfileError
from sglang_hetero_spec.build.profile.serve_pool import measure_mixed, measure_pool
from tests.build.profile.conftest import Files
from tests.build.profile.fake_engine import FakeEngine
from tests.support.manifest import write_manifest

OPTIONS = ProfileOptions(concurrency=(2,), num_prompts=3, max_new_tokens=11, passes=2)


@pytest.fixture
def pool(files: Files, tmp_path: Path) -> Path:
    drafter = {"name": "a", "kind": "standalone", "path": str(files.drafters / "a"), "external": True, "num_steps": 3}
    tasks = [{"id": "t0", "drafter": "a"}, {"id": "t1", "drafter": "off"}]
    return write_manifest(tmp_path / "pool", [drafter, {"name": "off", "kind": "none"}], fallback="off", tasks=tasks)


def test_each_task_alone_and_all_mixed(files: Files, pool: Path) -> None:
    engine = FakeEngine()
    found = measure_pool(files.target, pool, files.prompts, OPTIONS, start=engine.start)
    assert [one.task for one in found.tasks] == ["t0", "t1"] and [one.task for one in found.mixed] == [None]
    alone = found.of("t0", 2)
    assert (alone.counts.requests, alone.counts.completion_tokens) == (6, 66)
    assert alone.tokens_per_second == pytest.approx(66 / alone.seconds) and alone.accept_length == 66 / 60
    assert alone.clock.verify_forwards == 2 * 20
    assert found.of(None, 2).counts.requests == 10
    # The mix, in two batches, to warm up; then t0, t1 and the mix, and back.
    assert [requests for _, requests, *_ in engine.runs] == [2, 3, 3, 2, 2, 3, 2, 3, 2, 3]
    with pytest.raises(KeyError):
        found.of("t0", 4)


def test_the_mix_alone_at_shares(files: Files, pool: Path) -> None:
    engine = FakeEngine()
    shares = {"t1": 1.0}
    found = measure_mixed(files.target, pool, files.prompts, 4, OPTIONS, traffic=shares, start=engine.start)
    assert found.task is None and found.concurrency == 4
    assert [name for name, *_ in engine.runs] == ["t1"] * 3
    mixed = measure_mixed(files.target, pool, files.prompts, 4, OPTIONS, routing="router", start=engine.start)
    assert mixed.counts.requests == 10


def test_what_cannot_be_measured(files: Files, pool: Path) -> None:
    start = FakeEngine().start
    with pytest.raises(ProfileError, match="gives no task of the prompts a weight"):
        measure_pool(files.target, pool, files.prompts, OPTIONS, traffic={"t9": 1.0}, start=start)
    manifest = pool / "pool.json"
    manifest.write_text(manifest.read_text().replace('"t1"', '"t2"'))
    with pytest.raises(ProfileError, match=r"have a task `t1`, which .*pool does not know \(it has t0, t2\)"):
        measure_pool(files.target, pool, files.prompts, OPTIONS, start=start)
