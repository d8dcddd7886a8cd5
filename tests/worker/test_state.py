"""What the worker remembers between steps: committed tokens, written slots, whether a request may be drafted for."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch

from sglang_hetero_spec.worker.history import TokenHistory, ragged_places
from sglang_hetero_spec.worker.request_state import RequestState, drafting_is_exact
from sglang_hetero_spec.worker.written_slots import WrittenSlots

NUM_ROWS, MAX_LEN = 4, 40


class Conversations:
    """Requests that prefill in chunks, hit prefixes, decode and hand their rows on, driven as SGLang does."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.history = TokenHistory(NUM_ROWS, MAX_LEN, "cpu")
        self.truth: dict[int, list[int]] = {}
        self.owners: dict[int, int] = {}
        self.num_owners = 0

    def prefill(self, rows: list[int]) -> None:
        fills, prefixes = [], []
        for row in rows:
            going_on = row in self.truth and self.rng.random() < 0.4
            if not going_on:
                self.owners[row], self.num_owners = self.num_owners, self.num_owners + 1
            old = self.truth[row] if going_on else []
            prefix = len(old) if going_on else self.rng.choice([0, 0, 3, 9])
            known = old or [self.rng.randrange(100) for _ in range(prefix)]
            fills.append(known + [self.rng.randrange(100) for _ in range(self.rng.randint(1, 6))])
            prefixes.append(prefix)
        batch = SimpleNamespace(
            reqs=[SimpleNamespace(full_untruncated_fill_ids=fill) for fill in fills],
            req_pool_indices=torch.tensor(rows, dtype=torch.int32),
            req_pool_indices_cpu=torch.tensor(rows),
            prefix_lens=prefixes,
            extend_lens=[len(fill) - prefix for fill, prefix in zip(fills, prefixes, strict=True)],
            input_ids=torch.tensor([t for fill, p in zip(fills, prefixes, strict=True) for t in fill[p:]]),
        )
        self.history.record_prefill(batch, [self.owners[row] for row in rows])
        self.truth.update(zip(rows, fills, strict=True))

    def decode(self, rows: list[int], width: int) -> None:
        """truth holds all committed tokens; the root is the next one."""
        lens = torch.tensor([len(self.truth[row]) for row in rows])
        roots = [self.rng.randrange(100) for _ in rows]
        self.history.record_roots(torch.tensor(rows), lens, torch.tensor(roots))
        accepted = [[self.rng.randrange(100) for _ in range(width)] for _ in rows]
        self.history.record_commit(torch.tensor(rows), lens, torch.tensor(accepted))
        for row, root, tokens in zip(rows, roots, accepted, strict=True):
            self.truth[row] += [root, *tokens[: self.rng.randint(0, width - 1)]]

    def check(self) -> None:
        for row, tokens in self.truth.items():
            positions = torch.arange(len(tokens))
            assert self.history.read(torch.full_like(positions, row), positions).tolist() == tokens
            window = positions[None, -3:]
            assert self.history.read(torch.tensor([[row]]), window).tolist() == [tokens[-3:]]


@pytest.mark.parametrize("seed", range(30))
def test_the_history_holds_every_committed_token(seed: int) -> None:
    rng = random.Random(seed)
    talks = Conversations(rng)
    talks.prefill([0, 1, 2, 3])
    for _ in range(12):
        rows = rng.sample(range(NUM_ROWS), rng.randint(1, NUM_ROWS))
        room = [row for row in rows if len(talks.truth[row]) < MAX_LEN - 12]
        full = [row for row in rows if row not in room]
        for row in full:
            del talks.truth[row]
        if full or rng.random() < 0.3:
            talks.prefill(full or rows[:1])
        elif room:
            talks.decode(room, rng.randint(1, 5))
        talks.check()


def test_the_history_ends_at_its_last_place() -> None:
    history = TokenHistory(1, 4, "cpu")
    row = torch.tensor([0])
    history.record_commit(row, torch.tensor([2]), torch.tensor([[5, 6, 7]]))
    assert history.tokens.shape == (1, 4) and history.tokens[0, :3].tolist() == [0, 0, 0]
    assert history.read(row, torch.tensor([9])).shape == (1,)


def test_ragged_places() -> None:
    rows, positions = ragged_places(torch.tensor([5, 2, 9]), [3, 0, 7], [2, 0, 3], "cpu")
    assert rows.tolist() == [5, 5, 9, 9, 9] and rows.dtype == torch.int64
    assert positions.tolist() == [3, 4, 7, 8, 9]
    rows, positions = ragged_places(torch.tensor([], dtype=torch.int64), [], [], "cpu")
    assert rows.tolist() == positions.tolist() == []


@pytest.mark.parametrize("kv_pools", [[0, 1, 2], [0, 0, 2], [0, 0, 0]])
@pytest.mark.parametrize("seed", range(20))
def test_leading_runs_are_those_of_a_set_of_slots(seed: int, kv_pools: list[int]) -> None:
    rng = random.Random(seed)
    num_drafters, num_slots = 3, 30
    written = WrittenSlots(kv_pools, num_slots, "cpu")
    truth: list[set[int]] = [set() for _ in range(num_drafters)]

    def overwrite(drafter: int, slots: list[int]) -> None:
        for other, known in enumerate(truth):
            if kv_pools[other] == kv_pools[drafter]:
                known.difference_update(slots)

    for _ in range(20):
        slots = rng.sample(range(num_slots), rng.randint(1, 12))
        tensor = torch.tensor(slots)
        action = rng.choice(["clear", "mark", "mark", "mark some", "mark each"])
        if action == "clear":
            written.clear(tensor)
            for known in truth:
                known.difference_update(slots)
        elif action == "mark":
            drafter = rng.randrange(num_drafters)
            written.mark(drafter, tensor)
            overwrite(drafter, slots)
            truth[drafter].update(slots)
        elif action == "mark some":
            drafter = rng.randrange(num_drafters)
            flags = [rng.random() < 0.5 for _ in slots]
            written.mark(drafter, tensor, torch.tensor(flags))
            overwrite(drafter, slots)
            truth[drafter].update(slot for slot, flag in zip(slots, flags, strict=True) if flag)
        else:
            drafters = [rng.randrange(num_drafters) for _ in slots]
            written.mark(drafters, tensor)
            for drafter, slot in zip(drafters, slots, strict=True):
                overwrite(drafter, [slot])
                truth[drafter].add(slot)
    table = [rng.sample(range(num_slots), 10) for _ in range(4)]
    lens = [rng.randint(0, 10) for _ in table]
    for drafter in range(num_drafters):
        want = []
        for row, length in zip(table, lens, strict=True):
            missing = (place for place, slot in enumerate(row[:length]) if slot not in truth[drafter])
            want.append(next(missing, length))
        slots = torch.tensor(table, dtype=torch.int32)[:, : max(lens)]
        assert written.leading_run(drafter, slots, lens) == want
        assert written.leading_run([drafter] * 4, slots, lens) == want


PENALTIES = {
    "frequency_penalty": 0.1,
    "presence_penalty": -0.1,
    "repetition_penalty": 1.2,
    "min_new_tokens": 1,
}


@pytest.mark.usefixtures("sglang")
@pytest.mark.parametrize("name", [None, *PENALTIES])
def test_requests_with_penalties_are_not_drafted_for(name: str | None) -> None:
    from sglang.srt.sampling.sampling_params import SamplingParams

    exact = {"temperature": 0.7, "top_k": 5, "top_p": 0.8, "min_p": 0.1, "logit_bias": {"3": 1.0}}
    changed = {} if name is None else {name: PENALTIES[name]}
    assert drafting_is_exact(SamplingParams(**exact, **changed), None) == (name is None)


@pytest.mark.usefixtures("sglang")
def test_a_custom_logit_processor_gets_one_token_a_step() -> None:
    from sglang.srt.sampling.sampling_params import SamplingParams

    assert not drafting_is_exact(SamplingParams(), "a processor")


def test_no_two_requests_have_one_serial() -> None:
    states = [RequestState(route=None, drafters=(0,), may_draft=True) for _ in range(5)]
    assert len({state.serial for state in states}) == 5
