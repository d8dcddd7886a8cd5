"""Adapters in one batch against peft's own merged models: the lean CPU forward, SGLang's layers, and what changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sglang_hetero_spec.pool.adapter import read_adapter_config
from tests.support.adapters import fused_runner, merged, write_adapter
from tests.worker.test_cpu_llama import SHAPE, Bench, _spec

pytestmark = pytest.mark.usefixtures("sglang")

# Number in the pool: how its adapter was made; 0 is the base.
ADAPTERS: dict[int, dict[str, Any]] = {
    1: {"rank": 4, "seed": 1},
    2: {"rank": 2, "seed": 2, "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"]},
    3: {"rank": 8, "seed": 3, "use_rslora": True, "lora_alpha": 3},
    5: {"rank": 3, "seed": 5, "target_modules": ["k_proj"], "layers_to_transform": [1]},
}


class World:
    """A base, its adapters on disk, and peft's model of each number."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.base = LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, **SHAPE)).eval()
        self.folders = {
            number: write_adapter(self.base, folder / str(number), **made) for number, made in ADAPTERS.items()
        }
        self.models = {0: self.base} | {number: merged(self.base, path) for number, path in self.folders.items()}
        self.runner = fused_runner(self.base)

    def served(self, *numbers: int, runner: Any = None) -> Any:
        from sglang_hetero_spec.worker.lora import ServedAdapters

        served = ServedAdapters(runner or self.runner, "base")
        for number in numbers:
            folder = self.folders[number]
            served.add(number, folder, read_adapter_config(folder, "here").scale)
        return served


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("adapters"))


class LoraBench(Bench):
    """Requests of several drafters in one batch. drafters: one number a request."""

    kv_pools = (0,) * 6

    def __init__(self, world: World, lens: list[int], drafters: list[int], served: Any) -> None:
        self.world, self.numbers = world, drafters
        self._served = served
        super().__init__(world.base, lens, _spec(4, 1, 5))

    def batch(self, lens: list[int]) -> Any:
        from dataclasses import replace

        self.drafter.adapters = self._served
        return replace(super().batch(lens), drafters=tuple(self.numbers))

    def expected_of(self, number: int, ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return self.world.models[self.numbers[number]](torch.tensor([ids])).logits[0, -1]


@pytest.fixture(params=["copies", "stacked"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang_hetero_spec.worker import lora_weights

    monkeypatch.setattr(lora_weights, "SMALL_COPIES", 1 << 30 if request.param == "copies" else 0)


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("drafters", [[0, 1, 2, 3], [3, 3, 1, 1], [5, 0, 5, 2], [0, 0, 0, 0]])
def test_every_request_of_a_mixed_batch_drafts_with_its_own_adapter(world: World, drafters: list[int]) -> None:
    bench = LoraBench(world, [1, 7, 20, 3], drafters, world.served(1, 2, 3, 5))
    batch = bench.batch(bench.lens)
    logits = bench.drafter.read_window(batch, 2)
    tails: list[list[int]] = [[] for _ in bench.lens]
    for offset in range(1, 4):
        for number, tail in enumerate(tails):
            expected = bench.expected_of(number, bench.context(number) + tail)
            torch.testing.assert_close(logits[number], expected, atol=5e-4, rtol=1e-3)
            tail.append(int(logits[number].argmax()))
        logits = bench.drafter.read_next(batch, torch.tensor([tail[-1] for tail in tails]), offset)


@pytest.mark.usefixtures("_both_ways")
def test_tree_nodes_have_their_requests_adapter(world: World) -> None:
    bench = LoraBench(world, [4, 12], [3, 1], world.served(1, 3))
    batch = bench.batch(bench.lens)
    bench.drafter.read_window(batch, 4)
    tokens = torch.tensor([[3, 9, 5], [8, 2, 2]])
    logits = bench.drafter.read_tree(batch, tokens, torch.tensor([[-1, -1, 0], [-1, 0, 1]]))
    for number, path in ((0, [3, 5]), (1, [8, 2, 2])):
        expected = bench.expected_of(number, bench.context(number) + path)
        torch.testing.assert_close(logits[number, 2], expected, atol=5e-4, rtol=1e-3)


@pytest.mark.parametrize("small", [0, 1 << 30], ids=["split", "padded"])
def test_hooks_add_to_sglangs_layers_what_peft_adds(world: World, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang_hetero_spec.worker import lora_weights

    monkeypatch.setattr(lora_weights, "SMALL_MATRIX", small)
    served = world.served(1, 2, 3, 5)
    drafters, lens = [2, 0, 3, 5], [2, 1, 3, 1]
    work = served.of(drafters).repeated(lens)
    owners = [number for number, length in zip(drafters, lens, strict=True) for _ in range(length)]
    for layer in range(2):
        ours, hidden = world.runner.model.model.layers[layer], torch.randn(7, 32)
        wide = torch.randn(7, 48)
        with served.during(work), torch.no_grad():
            qkv, gate_up = ours.self_attn.qkv_proj(hidden)[0], ours.mlp.gate_up_proj(hidden)[0]
            out, down = ours.self_attn.o_proj(hidden)[0], ours.mlp.down_proj(wide)[0]
            for token, number in enumerate(owners):
                theirs = world.models[number].model.layers[layer]
                attention, mlp = theirs.self_attn, theirs.mlp
                x, y = hidden[token], wide[token]
                wanted = torch.cat((attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)))
                torch.testing.assert_close(qkv[token], wanted, atol=1e-5, rtol=1e-4)
                wanted = torch.cat((mlp.gate_proj(x), mlp.up_proj(x)))
                torch.testing.assert_close(gate_up[token], wanted, atol=1e-5, rtol=1e-4)
                torch.testing.assert_close(out[token], attention.o_proj(x), atol=1e-5, rtol=1e-4)
                torch.testing.assert_close(down[token], mlp.down_proj(y), atol=1e-5, rtol=1e-4)
        plain = ours.mlp.down_proj(wide)[0]
        torch.testing.assert_close(plain, world.base.model.layers[layer].mlp.down_proj(wide))


@pytest.mark.parametrize("small", [0, 1 << 30], ids=["split", "padded"])
def test_mlps_that_sglang_made_larger(world: World, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On CPU it rounds their inner size up with zeros (configs/update_config.py, `update_intermediate_size`)."""
    from sglang_hetero_spec.worker import lora_weights

    monkeypatch.setattr(lora_weights, "SMALL_MATRIX", small)
    runner = fused_runner(world.base, extra=16)
    served = world.served(1, 2, runner=runner)
    mlp, hidden, wide = runner.model.model.layers[0].mlp, torch.randn(2, 32), torch.randn(2, 48)
    with served.during(served.of([2, 1])), torch.no_grad():
        gate, up = mlp.gate_up_proj(hidden)[0].chunk(2, dim=-1)
        down = mlp.down_proj(torch.nn.functional.pad(wide, (0, 16)))[0]
        for token, number in enumerate((2, 1)):
            theirs = world.models[number].model.layers[0].mlp
            torch.testing.assert_close(gate[token, :48], theirs.gate_proj(hidden[token]), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(up[token, :48], theirs.up_proj(hidden[token]), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(down[token], theirs.down_proj(wide[token]), atol=1e-5, rtol=1e-4)
    assert not gate[:, 48:].any() and not up[:, 48:].any()


def test_a_stack_has_the_adapters_of_its_batch_and_no_other(world: World) -> None:
    served = world.served(1, 2, 3)
    assert served.of(None) is None
    assert served.of([0, 0, 9]) is None
    work = served.of([3, 0, 1])
    assert {mask.shape[1] for mask in work.masks} == {3 * 12, 12, 2 * 12}
    assert served.of([3, 0, 1]) is work, "the same requests once more"
    served.remove(3)
    work = served.of([3, 0, 1])
    assert {mask.shape[1] for mask in work.masks} == {3 * 4, 4, 2 * 4}
    served.add(3, world.folders[2], 1.0)
    assert served.of([3]).masks[0].shape[1] == 2 * 2  # q and v
    served.remove(1), served.remove(2), served.remove(3)
    assert served.of([3, 1]) is None and served.adapters.num_bytes == 0


def test_graphs_that_know_no_adapters_are_set_aside(world: World) -> None:
    served = world.served(1)
    world.runner.prefill_cuda_graph_runner = "graphs"
    with served.during(served.of([1])):
        assert world.runner.prefill_cuda_graph_runner is None
    with served.during(None):
        assert world.runner.prefill_cuda_graph_runner == "graphs"
    assert world.runner.prefill_cuda_graph_runner == "graphs"


def test_a_model_without_these_layers_is_refused(world: World) -> None:
    from sglang_hetero_spec.errors import HeteroError
    from sglang_hetero_spec.worker.lora import ServedAdapters

    runner = fused_runner(world.base)
    for layer in runner.model.model.layers:
        del layer.mlp.gate_up_proj
    with pytest.raises(HeteroError, match=r"Drafter near has adapters.*no gate_up_proj"):
        ServedAdapters(runner, "near")


@pytest.mark.parametrize("width", [1, 3], ids=["one token", "a window"])
def test_masks_that_stay_where_they_are_give_what_the_batchs_own_do(world: World, width: int) -> None:
    """As captured graphs read them: batches of other mixes and sizes are loaded into the same tensors."""
    served = world.served(1, 2, 3, 5)
    served._on_cpu = False  # there all adapters are stacked, whoever is in the batch
    static = served.nobody(6)
    places = [mask.data_ptr() for mask in static.masks]
    layer = world.runner.model.model.layers[1].self_attn
    for drafters in ([2, 0, 3, 5, 1, 1], [5, 5], [1, 0, 2], None, [3]):
        number = 4 if drafters is None else len(drafters)
        hidden = torch.randn(number * width, 32)
        work = served.of(drafters)
        static.load(work, number)
        with torch.no_grad():
            with served.during(static.first(number)):
                ours = layer.qkv_proj(hidden)[0]
            with served.during(None if work is None else work.repeated([width] * number)):
                wanted = layer.qkv_proj(hidden)[0]
        torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-4)
    assert [mask.data_ptr() for mask in static.masks] == places
