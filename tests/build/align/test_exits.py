"""Sorted fine-tuning: what is scored at each exit, and whole alignments with exits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from sglang_hetero_spec.build.align import AlignError, align
from sglang_hetero_spec.build.align.answers import read_answers
from sglang_hetero_spec.build.align.batches import AnswerHead, as_tensors
from sglang_hetero_spec.build.align.evaluate import first_choices
from sglang_hetero_spec.build.align.exits import ExitHead
from sglang_hetero_spec.build.align.models import cut_model
from sglang_hetero_spec.build.sorted_file import SORTED, SortedFileError, read_exits, write_exits
from tests.build.align import toy
from tests.build.align.test_align import rate

EXITS = (1, 3)


@pytest.fixture
def base(shop: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(shop / "base").eval()


def by_hand(model: LlamaForCausalLM, exit: int, ids: Tensor) -> Tensor:
    """A model of the first layers alone."""
    return cut_model(model, range(exit), 0).eval()(ids).logits.flatten(0, 1)


@torch.no_grad()
def test_every_exit_is_the_model_of_its_layers(shop: Path, base: LlamaForCausalLM) -> None:
    batch = as_tensors(read_answers(shop / "answers.jsonl")[:7])
    head = ExitHead(base, EXITS)
    parts = head.logits(base, batch["input_ids"], batch["keep"]).chunk(2)
    for exit, logits in zip(EXITS, parts, strict=True):
        torch.testing.assert_close(logits, by_hand(base, exit, batch["input_ids"])[batch["keep"]])
    # The next forward starts anew.
    assert len(head.logits(base, batch["input_ids"], batch["keep"])) == 2 * len(batch["keep"])


def test_first_choices_of_every_exit(shop: Path, base: LlamaForCausalLM) -> None:
    rows = read_answers(shop / "answers.jsonl")[::9]
    found = first_choices(base, ExitHead(base, EXITS), rows, 64)
    for exit, hits in zip(EXITS, found, strict=True):
        alone = cut_model(base, range(exit), 0).eval()
        assert [hits] == first_choices(alone, AnswerHead(alone), rows, 64)


def test_all_exits_learn_together(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "sorted"
    made = align(toy.request(shop, out, task=None, exits=list(EXITS), epochs=20.0, learning_rate=4e-3)).made
    assert made["kind"] == "sorted" and read_exits(out) == EXITS
    assert made["heldout_by_exit"]["3"]["digits"] == made["heldout"]["digits"]["after"]
    before, after = (hits_by_exit(folder, shop) for folder in (shop / "base", out))
    assert after[0] > before[0] + 0.1
    assert after[1] > after[0]


def hits_by_exit(folder: Path, shop: Path) -> list[float]:
    """Of all answers: those that were learned are told apart best."""
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    found = first_choices(model, ExitHead(model, EXITS), read_answers(shop / "answers.jsonl"), 256)
    return [sum(map(sum, hits)) / sum(map(len, hits)) for hits in found]


def test_from_the_first_layers_of_the_target_by_hard_labels(shop: Path, tmp_path: Path) -> None:
    request = toy.request(shop, tmp_path / "cut", use_base=False, layers=2, exits=[1, 2], loss="ce")
    made = align(request).made
    assert made["start"] == {"source": "layers", "layers": [0, 1], "base": None}
    assert rate(made["heldout_by_exit"]["1"]["digits"]) > 0


def test_the_last_exit_is_the_whole_model(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(AlignError, match=r"`exits` is \[1, 2\], but the drafter has 3 layers"):
        align(toy.request(shop, tmp_path / "out", exits=[1, 2]))


def test_sorted_file(tmp_path: Path) -> None:
    assert read_exits(tmp_path) is None
    write_exits(tmp_path, (1, 4))
    assert read_exits(tmp_path) == (1, 4)
    for text in ("[]", "{}", '{"format": "sglang_hetero_spec.sorted", "exits": [2, 1]}'):
        (tmp_path / SORTED).write_text(text)
        with pytest.raises(SortedFileError, match="damaged"):
            read_exits(tmp_path)
