"""The command line with its defaults, and what the servers are started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from sglang_hetero_spec.cli import build_parser
from sglang_hetero_spec.commands.output import UsageError
from sglang_hetero_spec.demo import measure
from sglang_hetero_spec.demo.arms import plan_arms, plan_servers
from sglang_hetero_spec.demo.errors import DemoError
from sglang_hetero_spec.demo.options import DemoOptions, from_arguments
from sglang_hetero_spec.pool import DrafterSpec, Pool, TargetSpec
from sglang_hetero_spec.serving import groups

GENERAL = DrafterSpec("general", "standalone", Path("/pool/g"), "shared", num_steps=3, topk=1, num_draft_tokens=4)
POOL = Pool(Path("/pool"), TargetSpec(), (GENERAL,), (), "general", None)
CPU = DemoOptions(device="cpu", dtype="float32", threads=2)


def options_of(*arguments: str) -> DemoOptions:
    return from_arguments(build_parser().parse_args(["demo", "--device", "cpu", *arguments]))


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert options_of() == DemoOptions(device="cpu", dtype="float32", threads=3)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert (options_of().threads or 0) >= 1
    assert options_of("--threads", "5").threads == 5


def test_what_is_given_counts() -> None:
    options = options_of("--concurrency", "1,4,4", "--target-params", "0", "--tokens", "9", "--dtype", "bfloat16")
    assert (options.concurrency, options.target_params, options.tokens, options.dtype) == ((1, 4), 0, 9, "bfloat16")


def test_more_tokens_than_the_models_can() -> None:
    with pytest.raises(UsageError, match="--tokens 1000 does not fit the demo's models"):
        options_of("--tokens", "1000")


def test_cuda_where_there_is_none() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is CUDA here")
    with pytest.raises(UsageError, match="--device cuda: no CUDA device is visible here"):
        from_arguments(build_parser().parse_args(["demo", "--device", "cuda"]))


def test_standalone_gets_what_the_general_drafter_has() -> None:
    plans = {plan.name: " ".join(plan.options) for plan in plan_servers(Path("/t"), POOL, CPU)}
    assert list(plans) == ["none", "standalone", "hetero"]
    assert "speculative" not in plans["none"]
    for words in ("STANDALONE", "path /pool/g", "num-steps 3", "eagle-topk 1", "num-draft-tokens 4"):
        assert words in plans["standalone"]
    assert "HETERO --speculative-draft-model-path /pool" in plans["hetero"]


def test_all_servers_but_for_speculation_are_alike() -> None:
    plans = plan_servers(Path("/t"), POOL, CPU)
    bare = plans[0].options
    assert all(plan.options[: len(bare)] == bare and plan.environ == plans[0].environ for plan in plans)
    assert plans[0].environ == {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": ""}


def test_one_drafter_shares_the_server_of_hetero() -> None:
    arms = {arm.name: arm for arm in plan_arms(POOL, CPU, one_drafter=True)}
    assert arms["hetero_general"].server == "hetero"
    assert arms["hetero_general"].override == {"drafter": "general"}
    assert "hetero_general" not in {arm.name for arm in plan_arms(POOL, CPU)}


@pytest.mark.parametrize(("free_gb", "sizes"), [(64, [3]), (6, [1, 1, 1])])
def test_servers_that_are_up_together(monkeypatch: pytest.MonkeyPatch, free_gb: int, sizes: list[int]) -> None:
    monkeypatch.setattr(groups, "available_memory", lambda: free_gb * 2**30)
    plans = plan_servers(Path("/t"), POOL, CPU)
    assert [len(group) for group in measure.groups(plans, CPU, 300_000_000)] == sizes


def test_too_little_memory_for_one_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "available_memory", lambda: 2**30)
    with pytest.raises(DemoError, match=r"About 3\.9 GB of memory are needed and 1\.0 GB are free"):
        measure.groups(plan_servers(Path("/t"), POOL, CPU), CPU, 300_000_000)
