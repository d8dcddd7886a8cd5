"""What a vocabulary of its own costs a drafter: TLI against the same model with a shared one, SLEM's work on the host.

Run with `pytest benchmarks/test_vocab_drafting.py -s`. One thread, as where many drafters share a CPU. The committed
text grows by what a verify step would accept, so that every part of a step is there.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable

import pytest
import torch
from transformers import AutoTokenizer

from benchmarks.loaded_drafter import NUM_STEPS, TARGET, batch_of, pairing_with, room_of, runner_of, spec_of
from sglang_hetero_spec import cpu

STEPS = 200
TEXT = "def add(a, b):\n    return a + b\n\nThe restaurant Zizzi serves Italian food. SELECT name FROM t;\n"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    cpu.enable()
    torch.set_num_threads(1)


def committed(num_tokens: int) -> list[int]:
    ids = AutoTokenizer.from_pretrained(TARGET)(TEXT, add_special_tokens=False).input_ids
    return (ids * (num_tokens // len(ids) + 1))[:num_tokens]


def step_times(drafter, record: Callable[[list[list[int]]], None], size: int, length: int) -> list[float]:
    """Seconds of each proposal, of which none, one, two, ... are accepted in turn, and a token of the target follows.

    record: puts committed tokens where the drafter reads them.
    """
    text = itertools.cycle(committed(length))
    texts = [list(itertools.islice(text, length)) for _ in range(size)]
    for number in range(size):
        drafter.admit(str(number))
    record(texts)
    tree = drafter.propose(batch_of(texts, newcomers=True))
    times = []
    for step in range(STEPS):
        for number, mine in enumerate(texts):
            num_accepted = min((step + number) % (NUM_STEPS + 1), tree.proposed[number])
            mine += [*tree.tokens[number, 1 : 1 + num_accepted].tolist(), next(text)]
        record(texts)
        batch = batch_of(texts, newcomers=False)
        start = time.perf_counter()
        tree = drafter.propose(batch)
        times.append(time.perf_counter() - start)
    return times


def shared_drafter(name: str, larger: bool = False):
    from sglang_hetero_spec.drafters.standalone import StandaloneDrafter
    from sglang_hetero_spec.worker.cpu_draft_model import CpuDraftModel
    from sglang_hetero_spec.worker.draft_model import Head, SharedState
    from sglang_hetero_spec.worker.history import TokenHistory
    from sglang_hetero_spec.worker.written_slots import WrittenSlots

    runner = runner_of(name, 40_000, larger)
    size = runner.model_config.vocab_size
    model = CpuDraftModel(0, runner, Head(size), room_of("shared"))
    table = runner.req_to_token_pool.req_to_token
    history = TokenHistory(*table.shape, "cpu")
    model.attach(SharedState(table, history, WrittenSlots([0], 40_000, "cpu")))
    model.catch_up = lambda batch, window: None
    return StandaloneDrafter(spec_of("shared"), model), _recorder(history, size)


def own_drafter(name: str, vocab: str, num_steps: int = 4, larger: bool = False):
    from sglang_hetero_spec.drafters.slem import SlemDrafter
    from sglang_hetero_spec.drafters.tli import TliDrafter
    from sglang_hetero_spec.worker.cpu_draft_model import CpuDraftModel
    from sglang_hetero_spec.worker.draft_model import Head
    from sglang_hetero_spec.worker.history import TokenHistory
    from sglang_hetero_spec.worker.own_sequences import OwnSequences

    pairing = pairing_with(name)
    runner = runner_of(name, 40_000, larger)
    ids = torch.from_numpy(pairing.shared.draft_ids.astype("int64")) if vocab == "tli" else None
    head = Head(runner.model_config.vocab_size if ids is None else len(ids), ids)
    model = CpuDraftModel(0, runner, head, num_steps + 1)
    model.read_range = lambda rows, starts, ends: None
    sequences = OwnSequences(model)
    history = TokenHistory(17, 20_000, "cpu")
    sequences.attach(history)
    spec = spec_of(vocab, num_steps)
    drafter = TliDrafter(spec, sequences, pairing, "cpu") if vocab == "tli" else SlemDrafter(spec, sequences, pairing)
    return drafter, _recorder(history, 1 << 30)


def _recorder(history, vocab_size: int) -> Callable[[list[list[int]]], None]:
    def record(texts: list[list[int]]) -> None:
        for row, text in enumerate(texts, start=1):
            history.tokens[row, : len(text)] = torch.tensor(text) % vocab_size

    return record


@pytest.mark.parametrize("size", [1, 16])
@pytest.mark.parametrize("larger", [False, True], ids=["demo", "larger"])
@pytest.mark.parametrize("name", ["bpe", "sentencepiece"])
def test_tli_against_a_shared_vocabulary(name: str, larger: bool, size: int) -> None:
    """The same weights, once as if its ids were the target's; interleaved rounds, medians of a step."""
    ratios, steps = [], []
    for _ in range(5):
        shared = statistics.median(step_times(*shared_drafter(name, larger), size, 200))
        tli = statistics.median(step_times(*own_drafter(name, "tli", larger=larger), size, 200))
        ratios.append(tli / shared)
        steps.append(shared)
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    title = f"{name}, {'larger' if larger else 'as the demo'}, {size} requests, {min(steps) * 1e3:.2f} ms a step"
    print(f"\n{title}: TLI takes {statistics.median(ratios):.3f} of the shared one's time ({spread})")


@pytest.mark.parametrize("length", [100, 4_000])
@pytest.mark.parametrize("name", ["bpe", "sentencepiece", "bytes"])
def test_slem_on_the_host(name: str, length: int) -> None:
    """Everything of a step but the draft model, per request: it is given no time."""
    drafter, record = own_drafter(name, "slem", 12 if name == "bytes" else 4)
    size = len(drafter._pairing.draft.table)
    rows = [torch.zeros(1, size).index_fill_(1, torch.randint(0, size, (1,)), 1.0) for _ in range(STEPS)]
    endless = itertools.cycle(rows)

    def logits(*_) -> torch.Tensor:
        return next(endless)

    drafter.sequences.model.read_window = logits
    drafter.sequences.model.read_next = logits
    times = sorted(step_times(drafter, record, 1, length))
    print(f"\n{name}, {length} tokens: {times[len(times) // 2] * 1e3:.3f} ms median, {times[-4] * 1e3:.3f} ms p99")
