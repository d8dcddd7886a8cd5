"""Sorted drafting on a real model: what each exit says, and that what is filled in later is bit for bit what a model
that computes all its layers for every token has there."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from sglang_hetero_spec.drafters.base import DraftBatch
from sglang_hetero_spec.drafters.sorted import SortedDrafter
from sglang_hetero_spec.pool import DrafterSpec
from sglang_hetero_spec.worker.history import TokenHistory
from sglang_hetero_spec.worker.written_slots import WrittenSlots
from tests.worker.test_cpu_llama import CONTEXT, ROWS, SHAPE, SLOTS, VOCAB, _as_sglang_runner

pytestmark = pytest.mark.usefixtures("sglang")

EXITS, STEPS, LENS = (1, 2, 4), 4, [3, 9, 1, 14]
NEVER = 2.0  # no confidence is that large


@pytest.fixture(scope="module", params=[False, True], ids=["gqa", "tied"])
def model(request: pytest.FixtureRequest) -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(num_key_value_heads=2, tie_word_embeddings=request.param, **{**SHAPE, "num_hidden_layers": 4})
    return LlamaForCausalLM(config).eval()


class Script:
    """A sampler that draws what it is told. temperatures: as drafters.base.Sampler."""

    temperatures = torch.ones(1, 1)

    def __init__(self, drafts: torch.Tensor) -> None:
        self.drafts = drafts
        self.seen: list[torch.Tensor] = []

    def draw(self, logits: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen.append(logits)
        return self.drafts[:, step], logits.softmax(dim=-1)


class World:
    """Requests whose tokens are known beforehand, drafted for with one set of thresholds."""

    def __init__(self, model: LlamaForCausalLM, thresholds: Sequence[float], lens: list[int], seed: int = 0) -> None:
        from sglang_hetero_spec.worker.draft_model import Head, SharedState
        from sglang_hetero_spec.worker.sorted_model import SortedCpuModel

        self.model, self.lens = model, list(lens)
        spec = DrafterSpec(
            "d", "sorted", None, "shared", STEPS, 1, STEPS + 1, exits=EXITS, thresholds=tuple(thresholds)
        )
        runner = _as_sglang_runner(model)
        self.sorted = SortedCpuModel(0, runner, Head(VOCAB), STEPS + 1, EXITS)
        generator = torch.Generator().manual_seed(seed)
        table = torch.randperm(SLOTS, generator=generator)[: ROWS * (SLOTS // ROWS)].view(ROWS, -1).int()
        history = TokenHistory(ROWS, table.shape[1], "cpu")
        history.tokens.copy_(torch.randint(0, VOCAB, history.tokens.shape, generator=generator))
        self.sorted.attach(SharedState(table, history, WrittenSlots([0], SLOTS, "cpu")))
        self.drafter = SortedDrafter(spec, self.sorted)
        self.rows = torch.randperm(ROWS, generator=generator)[: len(lens)]
        self.pools = [runner.token_to_kv_pool.get_key_buffer(i) for i in range(EXITS[-1])]
        self.pools += [runner.token_to_kv_pool.get_value_buffer(i) for i in range(EXITS[-1])]
        self.depths: list[int] = []
        self._read_prompts()

    def _read_prompts(self) -> None:
        """What SGLang's own forward does in `catch_up`: all layers of everything but the root."""
        before = DraftBatch(self.rows, torch.tensor(self.lens) - 1, torch.zeros(len(self.lens)))
        everyone = range(len(self.lens))
        self.sorted.read_window(before, max(self.lens))
        for exit in range(1, len(EXITS)):
            self.sorted.read_deeper(before, exit, everyone)

    def propose(self, numbers: list[int], script: Script) -> None:
        seq_lens = torch.tensor([self.lens[number] for number in numbers])
        rows = self.rows[numbers]
        deeper = self.sorted.read_deeper

        def counted(batch: DraftBatch, exit: int, members: Sequence[int]) -> torch.Tensor:
            self.depths.append(len(members))
            return deeper(batch, exit, members)

        self.sorted.read_deeper = counted
        history = self.sorted.shared.history
        self.drafter.propose(DraftBatch(rows, seq_lens, history.read(rows, seq_lens), sampler=script))
        self.sorted.read_deeper = deeper

    def tokens(self, number: int, end: int) -> list[int]:
        return self.sorted.shared.history.tokens[self.rows[number], :end].tolist()

    def kv(self, number: int, layer: int, end: int) -> torch.Tensor:
        """Keys and values of a layer at positions 0 .. end - 1."""
        slots = self.sorted.shared.req_to_token[self.rows[number], :end].long()
        return torch.stack([self.pools[layer][slots], self.pools[layer + EXITS[-1]][slots]])

    def fill_all(self) -> None:
        """Everything that is committed goes through all layers."""
        batch = DraftBatch(self.rows, torch.tensor(self.lens), torch.zeros(len(self.lens)))
        self.sorted.read_window(batch, 2)
        for exit in range(1, len(EXITS)):
            self.sorted.read_deeper(batch, exit, range(len(self.lens)))

    def expected(self, ids: list[int], exit: int) -> torch.Tensor:
        with torch.no_grad():
            states = self.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
            if EXITS[exit] == EXITS[-1]:
                return self.model(torch.tensor([ids])).logits[0, -1]
            return self.model.lm_head(self.model.model.norm(states[EXITS[exit]]))[0, -1]


def rounds(seed: int, num_rounds: int) -> list[tuple[list[int], list[int]]]:
    """Who drafts in each step, and how many drafts of each are right."""
    rng = random.Random(seed)
    found = []
    for _ in range(num_rounds):
        numbers = sorted(rng.sample(range(len(LENS)), rng.randint(1, len(LENS))))
        found.append((numbers, [rng.randint(0, STEPS) for _ in numbers]))
    return found


def play(world: World, seed: int, num_rounds: int = 7) -> None:
    """Drafts that are the request's next tokens up to the first wrong one."""
    for numbers, rights in rounds(seed, num_rounds):
        drafts = []
        for number, right in zip(numbers, rights, strict=True):
            at = world.lens[number] + 1
            coming = world.tokens(number, at + STEPS)[at:]
            drafts.append([token if i < right else (token + 1) % VOCAB for i, token in enumerate(coming)])
        world.propose(numbers, Script(torch.tensor(drafts)))
        for number, right in zip(numbers, rights, strict=True):
            world.lens[number] += right + 1
    assert max(world.lens) + STEPS < CONTEXT


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("thresholds", [(0.8, 0.85), (0.22, 0.3), (0.7, NEVER), (NEVER, 0.8), (0.8, 0.0)])
def test_filled_in_is_bit_equal_to_all_layers_always(
    model: LlamaForCausalLM, thresholds: tuple[float, float], threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        sorted_one, whole = World(model, thresholds, LENS), World(model, (NEVER, NEVER), LENS)
        for world in (sorted_one, whole):
            play(world, seed=3)
            world.fill_all()
    finally:
        torch.set_num_threads(before)
    assert 0 < sum(sorted_one.depths) < sum(whole.depths)
    assert len(set(sorted_one.depths)) > 1
    for number, length in enumerate(whole.lens):
        assert sorted_one.lens[number] == length
        for layer in range(EXITS[-1]):
            assert torch.equal(sorted_one.kv(number, layer, length + 1), whole.kv(number, layer, length + 1))


def test_rows_come_out_alike_in_any_company() -> None:
    """What the bits above rest on, at sizes that a tiny model does not have."""
    from sglang_hetero_spec.worker.sorted_model import ROWS, alike_keys

    torch.manual_seed(0)
    weight, rows = torch.randn(192, 64), torch.randn(64, 64)
    for count in range(ROWS, 65, ROWS):
        assert torch.equal(F.linear(rows[:count], weight), F.linear(rows, weight)[:count])
    query, key, value = torch.randn(2, 1500, 64), torch.randn(1, 1500, 64), torch.randn(1, 1500, 64)

    def attended(first: int, count: int, width: int) -> torch.Tensor:
        places = first + torch.arange(count)
        visible = torch.arange(width) <= places.unsqueeze(1)
        chosen = (query[None, :, places], key[None, :, :width], value[None, :, :width])
        return F.scaled_dot_product_attention(*chosen, attn_mask=visible, enable_gqa=True)

    rng = random.Random(0)
    for _ in range(200):
        first = rng.randrange(600)
        one, other = (attended(first, rng.choice((4, 8, 20)), alike_keys(first + rng.randrange(24, 900))) for _ in "12")
        count = min(one.shape[2], other.shape[2])
        assert torch.equal(one[:, :, :count], other[:, :, :count]), first


def test_drafts_come_from_the_first_exit_that_is_sure(model: LlamaForCausalLM) -> None:
    """Logits against transformers, at every step of every request."""
    thresholds = (0.8, 0.85)
    world = World(model, thresholds, LENS)
    play(world, seed=5, num_rounds=4)
    numbers = [0, 1, 3]
    script = Script(torch.randint(0, VOCAB, (3, STEPS)))
    world.propose(numbers, script)
    left, standing = set(), [1.0] * len(numbers)
    for step, logits in enumerate(script.seen):
        for place, number in enumerate(numbers):
            ids = world.tokens(number, world.lens[number] + 1) + script.drafts[place, :step].tolist()
            each = [world.expected(ids, exit) for exit in range(len(EXITS))]
            found = [float(e.softmax(-1).max()) for e in each]
            limits = [1 - threshold for threshold in (*thresholds, 0.0)]
            sure = [(1 - c) * standing[place] <= limit for c, limit in zip(found, limits, strict=True)]
            standing[place] *= found[sure.index(True)]
            left.add(sure.index(True))
            torch.testing.assert_close(logits[place], each[sure.index(True)], atol=2e-4, rtol=1e-4)
    assert len(left) > 1


def test_a_layer_that_nobody_needs_is_not_computed(model: LlamaForCausalLM) -> None:
    world = World(model, (0.0, 0.0), LENS)
    before = [world.kv(number, 1, 40) for number in range(len(LENS))]
    play(world, seed=1)
    assert world.depths == []
    assert all(torch.equal(world.kv(number, 1, 40), kv) for number, kv in enumerate(before))


def test_others_are_told_of_what_is_filled_and_of_nothing_else(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sglang_hetero_spec.worker.sorted_model.NOTE_EVERY", 1)
    world = World(model, (0.8, 0.85), LENS)
    play(world, seed=3)
    shared = world.sorted.shared
    for number, length in enumerate(world.lens):
        slots = shared.req_to_token[world.rows[number] : world.rows[number] + 1].long()
        (known,) = shared.written.leading_run(0, slots, [length + 1])
        filled = world.sorted._filled[world.rows[number]].tolist()
        assert filled == sorted(filled, reverse=True)
        assert 0 < known <= min(filled[-1], length)
        assert not (shared.written.writers[0, slots[0, length:]] == 0).any()


def test_memory_of_waiting_states_is_counted(model: LlamaForCausalLM) -> None:
    world = World(model, (0.1, 0.1), LENS)
    world.sorted.runner.dtype, world.sorted.runner.model_config.hidden_size = torch.float32, SHAPE["hidden_size"]
    assert world.sorted.hidden_cell_bytes * SLOTS == world.sorted._waiting.numel() * 4
