"""Alike draft models that read in one forward come to what each comes to alone, and leave the same behind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from sglang_hetero_spec.drafters.base import DraftBatch
from sglang_hetero_spec.drafters.tree import NO_NODE
from sglang_hetero_spec.worker.history import TokenHistory
from sglang_hetero_spec.worker.written_slots import WrittenSlots
from tests.worker.test_cpu_llama import ROWS, SHAPE, SLOTS, VOCAB, _as_sglang_runner

pytestmark = pytest.mark.usefixtures("sglang")

LENS = [9, 4, 12, 1, 7]
OWNERS = [0, 0, 1, 2, 2]


@dataclass
class World:
    """Three models of one shape over one slot table."""

    models: list
    history: TokenHistory
    rows: torch.Tensor

    def batch(self, places: list[int], drafters: list[int] | None) -> DraftBatch:
        rows, lens = self.rows[places], torch.tensor(LENS)[places]
        batch = DraftBatch(rows, lens, self.history.read(rows, lens))
        return batch if drafters is None else replace(batch, drafters=tuple(drafters))


def make_world(kind: str) -> World:
    from sglang_hetero_spec.worker.cpu_draft_model import CpuDraftModel
    from sglang_hetero_spec.worker.draft_model import Head, SharedState

    torch.manual_seed(0)
    made = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, tie_word_embeddings=True, **SHAPE)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(num_key_value_heads=1, **SHAPE)),
    }[kind]
    table = torch.randperm(SLOTS)[: ROWS * (SLOTS // ROWS)].view(ROWS, -1).int()
    history = TokenHistory(ROWS, table.shape[1], "cpu")
    history.tokens.copy_(torch.randint(0, VOCAB, history.tokens.shape))
    shared = SharedState(table, history, WrittenSlots([0, 1, 2], SLOTS, "cpu"))
    models = []
    for number in range(3):
        transformer = made().eval()
        for name, weight in transformer.named_parameters():
            if "norm" in name or "bias" in name:
                torch.nn.init.uniform_(weight, 0.5, 1.5)
        model = CpuDraftModel(number, kept_pools(_as_sglang_runner(transformer)), Head(VOCAB), room=9)
        model.attach(shared)
        models.append(model)
    return World(models, history, torch.randperm(ROWS)[: len(LENS)])


def kept_pools(runner: SimpleNamespace) -> SimpleNamespace:
    """With KV that was there before; each time the same tensors, as SGLang's pools give them."""
    layers = range(len(runner.model.model.layers))
    keys = [runner.token_to_kv_pool.get_key_buffer(layer).normal_().clone() for layer in layers]
    values = [runner.token_to_kv_pool.get_value_buffer(layer).normal_().clone() for layer in layers]
    runner.token_to_kv_pool = SimpleNamespace(get_key_buffer=keys.__getitem__, get_value_buffer=values.__getitem__)
    return runner


def pools(world: World) -> list[torch.Tensor]:
    """As the rest of SGLang sees them."""
    owners = [model.runner.token_to_kv_pool for model in world.models]
    return [
        buffer(layer) for pool in owners for buffer in (pool.get_key_buffer, pool.get_value_buffer) for layer in (0, 1)
    ]


def read_all(model: object, batch: DraftBatch, tokens: torch.Tensor, tree: torch.Tensor) -> torch.Tensor:
    """Logits of a window, a token and a tree, [b, ..., V]."""
    window = model.read_window(batch, 3)
    following = model.read_next(batch, tokens[:, 0], 1)
    nodes = model.read_tree(batch, tokens, tree)
    return torch.cat((window.unsqueeze(1), following.unsqueeze(1), nodes), dim=1)


@pytest.mark.parametrize("owners", [[0, 0, 1, 2, 2], [0, 1, 1, 1, 1], [0, 0, 1, 1, 2], [1, 1, 2, 2]])
@pytest.mark.parametrize("products", ["stacked", "one by one"])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_in_one_forward_as_each_alone(
    kind: str, products: str, owners: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sglang_hetero_spec.worker import grouped_llama
    from sglang_hetero_spec.worker.cpu_draft_model import group_models

    monkeypatch.setattr(grouped_llama, "STACKED", 1 << 22 if products == "stacked" else 0)
    alone, together = make_world(kind), make_world(kind)
    group_models(together.models)
    count = len(owners)
    tokens = torch.randint(0, VOCAB, (count, 3))
    tree = torch.tensor([[NO_NODE, NO_NODE, 0]]).repeat(count, 1)
    tree[2, 2] = 1
    found = read_all(together.models[1], together.batch(list(range(count)), owners), tokens, tree)
    for number, model in enumerate(alone.models):
        own = [place for place in range(count) if owners[place] == number]
        if own:
            expected = read_all(model, alone.batch(own, None), tokens[own], tree[own])
            torch.testing.assert_close(found[own], expected, atol=1e-5, rtol=1e-5)
    for one, other in zip(pools(together), pools(alone), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert torch.equal(together.models[0].shared.written.writers, alone.models[0].shared.written.writers)


def test_a_model_of_a_group_alone_is_itself() -> None:
    from sglang_hetero_spec.worker.cpu_draft_model import group_models

    world = make_world("llama")
    batch = world.batch([0, 2], None)
    before = world.models[1].read_window(batch, 2)
    group_models(world.models)
    assert torch.equal(world.models[1].read_window(batch, 2), before)


def test_each_model_reads_the_prompts_of_its_own_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang_hetero_spec.worker.cpu_draft_model import group_models

    world = make_world("llama")
    group_models(world.models)
    read: list[tuple[int, list[int], list[int], list[int]]] = []
    for model in world.models:
        monkeypatch.setattr(
            model, "read_range", lambda rows, lo, hi, w, m=model: read.append((m.drafter, rows.tolist(), lo, hi))
        )
    batch = replace(
        world.batch(list(range(5)), OWNERS), newcomers=(0, 2, 4), newcomer_lens=tuple(LENS[n] for n in (0, 2, 4))
    )
    world.models[2].catch_up(batch, 2)
    rows = world.rows.tolist()
    assert sorted(read) == [(0, [rows[0]], [0], [8]), (1, [rows[2]], [0], [11]), (2, [rows[4]], [0], [6])]


def test_who_reads_together() -> None:
    from sglang_hetero_spec.worker.cpu_draft_model import group_models

    world, other = make_world("llama"), make_world("qwen2")
    stranger = other.models[0]
    stranger.drafter = 3
    group_models([*world.models, stranger])
    assert len({model.together for model in world.models}) == 1
    assert stranger.together == id(stranger)
    world.models[0].adapters = object()
    assert world.models[0].together == id(world.models[0]) != world.models[1].together


@pytest.mark.parametrize("change", ["theta", "eps"])
def test_models_that_compute_otherwise_are_not_read_together(change: str) -> None:
    from sglang_hetero_spec.worker.grouped_llama import group_alike

    world = make_world("llama")
    llamas = {model.drafter: model.llama for model in world.models}
    if change == "theta":
        llamas[1]._cos_sin = llamas[1]._cos_sin * 0.9
    else:
        llamas[1]._eps = 1e-3
    assert [group.numbers for group in group_alike(llamas)] == [[0, 2]]
