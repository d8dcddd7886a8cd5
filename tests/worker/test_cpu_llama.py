"""The lean CPU forward of draft models against transformers, token by token, chain and tree."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from sglang_hetero_spec.drafters.base import DraftBatch
from sglang_hetero_spec.drafters.tree import NO_NODE
from sglang_hetero_spec.pool import DrafterSpec
from sglang_hetero_spec.worker.history import TokenHistory
from sglang_hetero_spec.worker.written_slots import WrittenSlots
from tests.support.sglang_layers import as_sglang_layer

pytestmark = pytest.mark.usefixtures("sglang")

VOCAB, CONTEXT, ROWS, SLOTS = 50, 64, 6, 400
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,
}


def _models() -> list:
    torch.manual_seed(0)
    return [
        LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, **SHAPE)).eval(),
        LlamaForCausalLM(LlamaConfig(num_key_value_heads=4, tie_word_embeddings=True, **SHAPE)).eval(),
        Qwen2ForCausalLM(Qwen2Config(num_key_value_heads=1, **SHAPE)).eval(),
    ]


def _as_sglang_runner(model: torch.nn.Module) -> SimpleNamespace:
    """The parts of an SGLang runner that CpuLlama reads, out of a transformers model."""
    config = model.config
    head_dim = config.hidden_size // config.num_attention_heads
    kv_heads = config.num_key_value_heads
    cos, sin = model.model.rotary_emb(torch.zeros(1), torch.arange(CONTEXT).unsqueeze(0))
    half = head_dim // 2
    rotary = SimpleNamespace(cos_sin_cache=torch.cat((cos[0, :, :half], sin[0, :, :half]), dim=-1))
    pools = [torch.zeros(2, SLOTS, kv_heads, head_dim) for _ in model.model.layers]
    layers = [as_sglang_layer(layer, number, rotary) for number, layer in enumerate(model.model.layers)]
    return SimpleNamespace(
        model=SimpleNamespace(
            config=config,
            lm_head=model.lm_head,
            model=SimpleNamespace(layers=layers, embed_tokens=model.model.embed_tokens, norm=model.model.norm),
        ),
        model_config=SimpleNamespace(vocab_size=VOCAB),
        token_to_kv_pool=SimpleNamespace(
            get_key_buffer=lambda number: pools[number][0], get_value_buffer=lambda number: pools[number][1]
        ),
    )


class Bench:
    """b requests of different lengths, whose prompts a draft model has read through windows alone.

    kv_pools: as WrittenSlots has them.
    """

    kv_pools = (0,)

    def __init__(self, model: torch.nn.Module, lens: list[int], spec: DrafterSpec) -> None:
        self.model, self.lens = model, lens
        from sglang_hetero_spec.drafters.growing import chain_room
        from sglang_hetero_spec.worker.cpu_draft_model import CpuDraftModel
        from sglang_hetero_spec.worker.draft_model import Head, SharedState

        self.drafter = CpuDraftModel(0, _as_sglang_runner(model), Head(VOCAB), chain_room(spec))
        table = torch.randperm(SLOTS)[: ROWS * (SLOTS // ROWS)].view(ROWS, -1).int()
        history = TokenHistory(ROWS, table.shape[1], "cpu")
        history.tokens.copy_(torch.randint(0, VOCAB, history.tokens.shape))
        self.drafter.attach(SharedState(table, history, WrittenSlots(self.kv_pools, SLOTS, "cpu")))
        self.rows = torch.randperm(ROWS)[: len(lens)]
        for length in range(max(lens)):  # one token after the other, rows that are done read their last again
            self.drafter.read_window(self.batch([min(length, most) for most in lens]), 1)

    def batch(self, lens: list[int]) -> DraftBatch:
        seq_lens = torch.tensor(lens)
        return DraftBatch(self.rows, seq_lens, self.drafter.shared.history.read(self.rows, seq_lens))

    def context(self, number: int) -> list[int]:
        return self.drafter.shared.history.tokens[self.rows[number], : self.lens[number] + 1].tolist()

    def expected(self, ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return self.model(torch.tensor([ids])).logits[0, -1]


def _spec(num_steps: int, topk: int, num_draft_tokens: int) -> DrafterSpec:
    return DrafterSpec(
        name="d", kind="standalone", path=None, vocab="shared", num_steps=num_steps, topk=topk,
        num_draft_tokens=num_draft_tokens, external=False, weights_sha256=None, tokenizer_sha256=None,
    )  # fmt: skip


@pytest.fixture(params=range(3), ids=["gqa", "tied", "qwen2"])
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    return _models()[request.param]


@pytest.mark.parametrize("window", [1, 2, 5])
def test_window_and_chain_equal_transformers(model: torch.nn.Module, window: int) -> None:
    bench = Bench(model, [1, 7, 20, 3], _spec(4, 1, 5))
    batch = bench.batch(bench.lens)
    logits = bench.drafter.read_window(batch, window)
    tails: list[list[int]] = [[] for _ in bench.lens]
    for offset in range(1, 5):
        for number, tail in enumerate(tails):
            expected = bench.expected(bench.context(number) + tail)
            torch.testing.assert_close(logits[number], expected, atol=2e-4, rtol=1e-4)
            tail.append(int(logits[number].argmax()))
        logits = bench.drafter.read_next(batch, torch.tensor([tail[-1] for tail in tails]), offset)


def test_a_window_wider_than_what_a_short_request_has(model: torch.nn.Module) -> None:
    """A request with a second drafter reads as many tokens again as that one's tree is deep."""
    bench = Bench(model, [2, 1], _spec(2, 1, 3))
    batch = bench.batch(bench.lens)
    logits = bench.drafter.read_window(batch, 17)
    for number in range(2):
        torch.testing.assert_close(logits[number], bench.expected(bench.context(number)), atol=2e-4, rtol=1e-4)
    token = logits.argmax(dim=-1)
    logits = bench.drafter.read_next(batch, token, 1)
    expected = bench.expected([*bench.context(0), int(token[0])])
    torch.testing.assert_close(logits[0], expected, atol=2e-4, rtol=1e-4)


def test_tree_nodes_see_their_ancestors_only(model: torch.nn.Module) -> None:
    bench = Bench(model, [4, 12, 1], _spec(3, 2, 6))
    batch = bench.batch(bench.lens)
    bench.drafter.read_window(batch, 4)
    parents = torch.tensor([[NO_NODE, NO_NODE, 1, 0], [NO_NODE, NO_NODE, 0, 0], [NO_NODE, NO_NODE, 1, 2]])
    tokens = torch.randint(0, VOCAB, parents.shape)
    bench.drafter.read_tree(batch, tokens[:, :2], parents[:, :2])
    logits = bench.drafter.read_tree(batch, tokens, parents)
    for number in range(3):
        for node in range(4):
            path, at = [], node
            while at != NO_NODE:
                path.insert(0, int(tokens[number, at]))
                at = int(parents[number, at])
            expected = bench.expected(bench.context(number) + path)
            torch.testing.assert_close(logits[number, node], expected, atol=2e-4, rtol=1e-4)


def test_chain_leaves_its_keys_where_the_tokens_will_be(model: torch.nn.Module) -> None:
    """After a chain is accepted, the next window needs no more than its last two tokens."""
    bench = Bench(model, [6, 9], _spec(4, 1, 5))
    batch = bench.batch(bench.lens)
    logits = bench.drafter.read_window(batch, 2)
    drafts = [logits.argmax(dim=-1)]
    for offset in range(1, 4):
        drafts.append(bench.drafter.read_next(batch, drafts[-1], offset).argmax(dim=-1))
    history = bench.drafter.shared.history
    history.record_commit(bench.rows, batch.seq_lens, torch.stack([*drafts, torch.tensor([3, 4])], dim=1))
    bench.lens = [length + 5 for length in bench.lens]
    logits = bench.drafter.read_window(bench.batch(bench.lens), 2)
    for number in range(2):
        torch.testing.assert_close(logits[number], bench.expected(bench.context(number)), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("ranges", [[(0, 5), (2, 9), (8, 9)], [(3, 20)]])
def test_short_prompts_are_read_as_in_windows(
    model: torch.nn.Module, ranges: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(model, [30, 30, 30], _spec(4, 1, 5))
    pool, table = bench.drafter.runner.token_to_kv_pool, bench.drafter.shared.req_to_token
    own = [table[bench.rows[n], start:end].long() for n, (start, end) in enumerate(ranges)]
    buffers = [buffer(layer) for buffer in (pool.get_key_buffer, pool.get_value_buffer) for layer in (0, 1)]
    before = [buffer.clone() for buffer in buffers]
    written = bench.drafter.shared.written.writers
    written.fill_(-1)
    for buffer in buffers:
        for slots in own:
            buffer[slots] = torch.nan
    starts, ends = (list(each) for each in zip(*ranges, strict=True))
    bench.drafter.read_range(bench.rows[: len(ranges)], starts, ends)
    for buffer, earlier in zip(buffers, before, strict=True):
        torch.testing.assert_close(buffer, earlier, atol=2e-4, rtol=1e-4)
    assert sorted((written[0] == 0).nonzero().flatten().tolist()) == sorted(torch.cat(own).tolist())


def test_a_long_prompt_is_read_by_sglang(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang_hetero_spec.worker import cpu_draft_model

    bench = Bench(model, [30], _spec(4, 1, 5))
    read: list[list[int]] = []
    monkeypatch.setattr(cpu_draft_model, "_MOST_SCORES", 10 * 20)
    monkeypatch.setattr(
        cpu_draft_model.SGLangDraftModel, "read_range", lambda self, rows, starts, ends, writers: read.append(ends)
    )
    bench.drafter.read_range(bench.rows, [10], [20])
    bench.drafter.read_range(bench.rows, [9], [20])
    assert read == [[20]]
