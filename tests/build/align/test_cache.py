"""What is kept of the target says the same as the target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from sglang_hetero_spec.build.align import AlignError, cache
from sglang_hetero_spec.build.align.answers import read_answers
from sglang_hetero_spec.build.align.batches import AnswerHead, as_tensors
from sglang_hetero_spec.build.align.losses import forward_kl
from sglang_hetero_spec.build.align.teacher import HiddenTeacher, LiveTeacher, TopKTeacher, is_plain_head

SIZE = 258


@pytest.fixture(scope="module")
def target(shop: Path) -> tuple[Any, AnswerHead]:
    model = LlamaForCausalLM.from_pretrained(shop / "target").eval().requires_grad_(False)
    return model, AnswerHead(model)


def spec(kind: Any, topk: int = 8) -> cache.CacheSpec:
    return cache.CacheSpec(kind, "t", "float32", topk, SIZE)


def test_a_kept_teacher_says_what_the_live_one_does(shop: Path, target: tuple[Any, AnswerHead], tmp_path: Path) -> None:
    model, head = target
    rows = read_answers(shop / "answers.jsonl")
    shards = {kind: cache.fill(tmp_path, rows, spec(kind, 250), model, head, 200, print) for kind in ("hidden", "topk")}
    teachers = [
        LiveTeacher(model, head, SIZE),
        HiddenTeacher(model.lm_head, shards["hidden"], SIZE),
        TopKTeacher(shards["topk"], SIZE),
    ]
    chosen = [rows[5], rows[40], rows[0]]
    batch = as_tensors(chosen)
    student = torch.randn(len(batch["tokens"]), SIZE, generator=torch.Generator().manual_seed(0))
    found = [forward_kl(*t.pair(student, {**batch, **t.columns(chosen)})).item() for t in teachers]
    assert found[1] == pytest.approx(found[0], rel=1e-2)  # hidden states are kept in bfloat16
    assert 0.99 * found[0] < found[2] < found[0]  # eight unlikely tokens are taken together


def test_tasks_share_what_is_kept(shop: Path, target: tuple[Any, AnswerHead], tmp_path: Path) -> None:
    rows = read_answers(shop / "answers.jsonl")
    mine = [row for row in rows if row.task == "letters"]
    said: list[str] = []
    cache.fill(tmp_path, mine, spec("hidden"), *target, 200, said.append)
    cache.fill(tmp_path, rows, spec("hidden"), *target, 200, said.append)
    cache.fill(tmp_path, rows, spec("hidden"), *target, 200, said.append)
    assert len(said) == 2  # one shard for each task, each made once
    assert len(list(tmp_path.iterdir())) == 2


def test_other_rows_or_another_target_are_another_shard(shop: Path) -> None:
    rows = read_answers(shop / "answers.jsonl")
    names = {
        spec("hidden").name(rows),
        spec("hidden").name(rows[1:]),
        spec("topk").name(rows),
        spec("topk", 9).name(rows),
    }
    assert len(names) == 4


def test_a_full_disk_is_one_sentence(
    shop: Path, target: tuple[Any, AnswerHead], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "save_file", full)
    with pytest.raises(AlignError, match=r"No space left.*free disk space"):
        cache.fill(tmp_path, read_answers(shop / "answers.jsonl")[:3], spec("hidden"), *target, 200, print)
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_does_more_is_seen(shop: Path, target: tuple[Any, AnswerHead]) -> None:
    model, head = target
    row = read_answers(shop / "answers.jsonl")[0]
    assert is_plain_head(model, head, row)
    hook = model.register_forward_hook(lambda _m, _a, out: setattr(out, "logits", out.logits.tanh()))
    assert not is_plain_head(model, head, row)
    hook.remove()
