"""Parts of a step that the stub worker leaves out: adapters, sampling, masks, FlashInfer's arrays."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_hetero_spec.cuda.tree_plan import plan_tree
from sglang_hetero_spec.drafters.tree import NO_NODE, DraftLaw, DraftTree, chain
from tests.host_waits.fake_device import (
    DEVICE,
    SYNCHRONIZE,
    StandInKernel,
    held,
    no_host_waits,
    on_device,
    watched_device,
)

pytestmark = pytest.mark.usefixtures("sglang")
SIZE, WIDTH, VOCAB = 4, 5, 32


def served_adapters() -> Any:
    """Numbers 1 and 2, of rank 2, on one projection."""
    from sglang_hetero_spec.worker.lora import ServedAdapters
    from sglang_hetero_spec.worker.lora_weights import Adapters, LowRank

    adapters = Adapters(dict.fromkeys(("q_proj", "k_proj", "v_proj"), 8), {}, torch.float32, DEVICE)
    for number in (1, 2):
        matrices = LowRank(on_device(torch.ones(2, 8)), on_device(torch.full((8, 2), float(number))))
        adapters._sites[number] = {(0, "q_proj"): matrices}
    served = object.__new__(ServedAdapters)
    vars(served).update(adapters=adapters, _runner=SimpleNamespace(device=str(DEVICE)), _on_cpu=False, _known=None)
    return served


def test_adapters_of_a_batch() -> None:
    """Also where the batch has changed, since who has which adapter is known on the host."""
    with watched_device():
        served = served_adapters()
        served.of((0, 1, 1, 2))
    with no_host_waits():
        work = served.of((2, 1, 0, 2))
        output = torch.zeros(SIZE, 24, device=DEVICE)
        work.add(0, "qkv_proj", output, torch.ones(SIZE, 8, device=DEVICE))
        work.repeated([1, 3, 2, 1])
    assert held(output)[:, 0].tolist() == [32.0, 16.0, 0.0, 32.0]
    with no_host_waits() as seen:
        assert served.of((2, 1, 0, 2)) is work
    assert not seen.launches


def test_an_adapter_that_comes_waits_once() -> None:
    """Between two forwards, when an operator loads or unloads one."""
    with watched_device() as seen:
        served_adapters()._wait()
    assert [wait.kind for wait in seen.waits] == [SYNCHRONIZE]


def verify_input(tree: DraftTree, mode: str = "QLEN_ONLY", with_buffer: bool = False) -> tuple[Any, Any]:
    from sglang.kernels.ops.speculative.spec_tree import TreeMaskMode

    from sglang_hetero_spec.worker.merge import Proposal, merge_trees
    from sglang_hetero_spec.worker.verify_input import build_verify_input

    lens = torch.arange(10, 10 + SIZE)
    room = torch.zeros(SIZE * WIDTH * 99, dtype=torch.bool, device=DEVICE) if with_buffer else None
    owned = SimpleNamespace(mode=TreeMaskMode[mode], buffer=room, fits=lambda _: with_buffer)
    backend = SimpleNamespace(verify_mask=owned, max_context_len=64)
    runner = SimpleNamespace(attn_backend=backend, decode_cuda_graph_runner=None)
    batch = SimpleNamespace(seq_lens=on_device(lens), seq_lens_cpu=lens, seq_lens_sum=int(lens.sum()))
    proposal = Proposal(list(range(SIZE)), on_device(torch.arange(SIZE)), [0] * SIZE, tree)
    merged = merge_trees(on_device(torch.ones(SIZE, dtype=torch.int64)), [proposal], WIDTH, VOCAB)
    return build_verify_input(merged, batch, runner), batch


def trees() -> dict[str, DraftTree]:
    tokens = on_device(torch.arange(SIZE * WIDTH).view(SIZE, WIDTH))
    parents = on_device(torch.tensor([[NO_NODE, 0, 0, 1, 1]] * SIZE))
    law = DraftLaw(on_device(torch.full((SIZE, WIDTH - 1, VOCAB), 1 / VOCAB)))
    return {
        "chain": chain(tokens, num_fed=1),
        "drawn": chain(tokens, num_fed=1, law=law),
        "tree": DraftTree(tokens, parents, depth=2, num_fed=1),
    }


@pytest.mark.parametrize("with_buffer", [False, True])
@pytest.mark.parametrize("mode", ["QLEN_ONLY", "FULL_MASK"])
@pytest.mark.parametrize("form", ["chain", "tree"])
def test_the_verify_input(form: str, mode: str, with_buffer: bool) -> None:
    with watched_device():
        verify_input(trees()[form], mode, with_buffer)
    tree = trees()[form]
    with watched_device() as seen:
        made, _ = verify_input(tree, mode, with_buffer)
    assert [str(wait) for wait in seen.waits] == []
    assert made.positions.is_cuda and made.custom_mask.is_cuda


@pytest.fixture
def sampling(monkeypatch: pytest.MonkeyPatch) -> Any:
    """worker.sampling on one rank; SGLang's compiled sampler is a stub."""
    from sglang_hetero_spec.worker import sampling

    parallel = SimpleNamespace(tp_group=SimpleNamespace(world_size=1))
    monkeypatch.setattr(sampling, "get_parallel", lambda: parallel)
    kernel = SimpleNamespace(sampling_backend="flashinfer")
    monkeypatch.setattr(sampling, "get_exec", lambda: SimpleNamespace(kernel=kernel))
    monkeypatch.setattr(sampling, "_cuda_sampler", lambda: lambda **_: None)
    return sampling


@pytest.mark.parametrize("form", ["chain", "drawn", "tree"])
def test_sampling_with_every_parameter(sampling: Any, form: str) -> None:
    def ours(*_: Any, **__: Any) -> Any:
        raise AssertionError("SGLang's own function is not exact here")

    filters = {
        "top_ks": on_device(torch.full((SIZE,), 9)),
        "top_ps": on_device(torch.full((SIZE,), 0.9)),
        "min_ps": on_device(torch.full((SIZE,), 0.1)),
    }
    info = SimpleNamespace(
        is_all_greedy=False,
        has_custom_logit_processor=False,
        sampling_seed=None,
        temperatures=on_device(torch.ones(SIZE, 1)),
        **filters,
        need_top_k_sampling=True,
        need_top_p_sampling=True,
        need_min_p_sampling=True,
        max_top_k=9,
        acc_additive_penalties=on_device(torch.zeros(SIZE, VOCAB)),
        acc_scaling_penalties=None,
        logit_bias=on_device(torch.zeros(SIZE, VOCAB)),
    )
    logits = on_device(torch.rand(SIZE * WIDTH, VOCAB))
    with watched_device():
        made, batch = verify_input(trees()[form])
        batch.sampling_info, batch.device = info, str(DEVICE)
        batch.forward_mode = SimpleNamespace(is_idle=lambda: False)
    for _ in range(2):
        with watched_device() as seen:
            sampling.sample_exactly(ours, made, batch, SimpleNamespace(next_token_logits=logits))
    assert [str(wait) for wait in seen.waits] == []


def test_the_arrays_of_two_part_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("plan_kernel")
    module.page_kernel, module.tree_call_kernel = StandInKernel("page_kernel"), StandInKernel("tree_call_kernel")
    monkeypatch.setitem(sys.modules, "sglang_hetero_spec.cuda.plan_kernel", module)
    from sglang_hetero_spec.cuda.plan_arrays import Trees, fill

    lens = torch.tensor([40, 7, 100, 33])
    on_the_device = Trees(
        table=on_device(torch.zeros(9, 256, dtype=torch.int32)),
        rows=on_device(torch.arange(SIZE)),
        seq_lens=on_device(lens),
        positions=on_device(torch.zeros(SIZE * WIDTH, dtype=torch.int64)),
        mask=on_device(torch.ones(SIZE * WIDTH * WIDTH, dtype=torch.bool)),
    )
    with no_host_waits() as seen:
        fill(plan_tree(lens, WIDTH, 4, 16), on_the_device)
    assert sum(seen.launches.values()) == 3 and sum(seen.copies.values()) == 1
