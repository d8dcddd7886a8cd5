"""Host time that a vocabulary of its own costs a drafter: mapping TLI's tokens, SLEM's texts, pairing two tokenizers.

The draft model is given no time: it returns logits made beforehand. With the models at work: test_vocab_drafting.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.loaded_drafter import MODELS, NUM_STEPS, TARGET, batch_of
from benchmarks.test_vocab_drafting import committed, own_drafter
from sglang_hetero_spec import cpu
from sglang_hetero_spec.vocab.pairing import pair
from tests.support.threads import one_thread

STEPS = 60


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    cpu.enable()
    with one_thread():
        yield


def _without_model(name: str, vocab: str, size: int) -> tuple[object, Callable[[list[list[int]]], None]]:
    drafter, record = own_drafter(name, vocab)
    columns = len(drafter._columns.draft_ids) if vocab == "tli" else len(drafter._pairing.draft.table)
    torch.manual_seed(0)
    logits = itertools.cycle([torch.randn(size, columns) for _ in range(20)])
    for read in ("read_window", "read_next"):
        setattr(drafter.sequences.model, read, lambda *_: next(logits))
    return drafter, record


def _proposals(name: str, vocab: str, size: int) -> tuple[Callable[[], tuple[tuple, dict]], Callable[[object], None]]:
    """What comes before a proposal (some of the last drafts are accepted, a token follows) and the proposal itself."""
    drafter, record = _without_model(name, vocab, size)
    endless = itertools.cycle(committed(1000))
    texts = [list(itertools.islice(endless, 200 + number)) for number in range(size)]
    for number in range(size):
        drafter.admit(str(number))
    record(texts)
    trees = [drafter.propose(batch_of(texts, newcomers=True))]
    steps = itertools.count()

    def setup() -> tuple[tuple, dict]:
        step, tree = next(steps), trees[-1]
        for number, mine in enumerate(texts):
            accepted = min((step + number) % (NUM_STEPS + 1), tree.proposed[number])
            mine += [*tree.tokens[number, 1 : 1 + accepted].tolist(), next(endless)]
        record(texts)
        return (batch_of(texts, newcomers=False),), {}

    def propose(batch: object) -> None:
        trees[0] = drafter.propose(batch)

    return setup, propose


@pytest.mark.parametrize("vocab", ["tli", "slem"])
@pytest.mark.parametrize("name", ["bpe", "sentencepiece"])
@pytest.mark.parametrize("size", [1, 16])
def test_proposal(benchmark, size: int, name: str, vocab: str) -> None:  # type: ignore[no-untyped-def]
    """One proposal for `size` requests: texts read anew, drafts mapped (TLI) or spelled again (SLEM), a tree made."""
    setup, propose = _proposals(name, vocab, size)
    benchmark.group = f"{vocab} host path, {size} request{'s' if size > 1 else ''}"
    with torch.inference_mode():
        benchmark.pedantic(propose, setup=setup, rounds=STEPS, warmup_rounds=5)


@pytest.mark.parametrize("name", ["bpe", "sentencepiece", "bytes"])
def test_pairing(benchmark, tmp_path: Path, name: str) -> None:  # type: ignore[no-untyped-def]
    """TLI's mapping, made at start-up: both tokenizers read and intersected, nothing cached."""
    benchmark.group = "pairing of two tokenizers"
    folders = itertools.count()
    benchmark.pedantic(
        lambda: pair(TARGET, MODELS / name, cache=tmp_path / str(next(folders))), rounds=5, warmup_rounds=1
    )
