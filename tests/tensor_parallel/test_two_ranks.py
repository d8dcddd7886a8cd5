"""Two ranks on SGLang's CPU engine: they decide alike and answer as the target does.

In a folder of its own: beside the engines of another they would take too much memory.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.cases import cases_of, mixed_prompts
from tests.engine.compare import first_difference
from tests.engine.conftest import assert_nothing_left
from tests.engine.figures import accept_length, served_by
from tests.engine.fleet import EXACT, ROOMY, STRICT, ask
from tests.engine.pools import Models, tiny_models
from tests.support.manifest import write_manifest
from tests.support.servers import running_server

DRAFTERS = ("near", "wide", "copies", "none")
# One core for each rank: without it SGLang wants a NUMA node for each. And no NCCL: where torch brings it, SGLang
# opens it on CPU ranks too, and ends (parallel_state.py, GroupCoordinator); they then meet over gloo.
TWO_RANKS = {"SGLANG_CPU_OMP_THREADS_BIND": "0|1", "SGLANG_NCCL_SO_PATH": "/nowhere/libnccl.so"}


def shared_pool(folder: Path, models: Models) -> Path:
    """Drafters that more ranks than one can serve: two models, copies, and none."""
    near, *_, stranger = models.drafters
    entries = [
        {"name": "near", "kind": "standalone", "path": str(near), "num_steps": 3, "topk": 1, "num_draft_tokens": 4},
        {"name": "wide", "kind": "standalone", "path": str(stranger), "num_steps": 3, "topk": 2, "num_draft_tokens": 6},
    ]
    entries = [{**entry, "external": True, "vocab": "shared"} for entry in entries]
    entries += [{"name": "copies", "kind": "ngram", "num_steps": 5, "topk": 2, "num_draft_tokens": 8}]
    return write_manifest(folder / "pool", [*entries, {"name": "none", "kind": "none"}], fallback="near")


@pytest.mark.slow
def test_two_ranks(tmp_path: Path) -> None:
    """Ranks that decided differently would wait for each other in the target's all-reduce until the test's time is up,
    or answer with tokens that are not the target's."""
    models = tiny_models(tmp_path / "models")
    flags = ("--speculative-algorithm", "HETERO", "--speculative-draft-model-path")
    flags += (str(shared_pool(tmp_path, models)), "--tp-size", "2")
    prompts = mixed_prompts(models.heldout, 32)
    with running_server(models.target, tmp_path / "log", *EXACT, *ROOMY, *flags, env={**STRICT, **TWO_RANKS}) as server:
        plain = ask(server, cases_of(prompts, ["none"]))
        cases = cases_of(prompts, DRAFTERS)
        answers = ask(server, cases)
        assert_nothing_left(server)
    for case, want, have in zip(cases, plain, answers, strict=True):
        place = first_difference(want["output_ids"], have["output_ids"])
        assert place == len(want["output_ids"]), f"{case.drafter}: token {place} of {case.prompt!r}"
    assert accept_length(served_by("near", cases, answers)) > 1.5, "the drafter's ranks agree with each other as well"
