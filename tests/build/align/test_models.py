"""Answer-only logits, cutting layers, fresh shapes, optimizers: against the plain model."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from sglang_hetero_spec.build.align import AlignError
from sglang_hetero_spec.build.align.answers import read_answers
from sglang_hetero_spec.build.align.batches import AnswerHead, as_tensors
from sglang_hetero_spec.build.align.models import cut_model, fresh_model, head_params, num_layers, same_vocabulary
from sglang_hetero_spec.build.align.optimizers import MuonAdamW
from sglang_hetero_spec.build.align.settings import ShapeSettings
from tests.support.tiny_models import byte_tokenizer

TINY = ShapeSettings(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, head_dim=8, intermediate_size=24)


@pytest.fixture(scope="module")
def target(shop: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(shop / "target")


def test_only_answer_positions_are_scored_and_learnt_from(shop: Path, target: LlamaForCausalLM) -> None:
    rows = read_answers(shop / "answers.jsonl")[:5]
    batch = as_tensors(rows)
    head = AnswerHead(target)
    ours = head.logits(target, batch["input_ids"], batch["keep"])
    plain = torch.cat([
        target(input_ids=torch.tensor([[*row.prompt, *row.answer]])).logits[0, len(row.prompt) - 1 : -1] for row in rows
    ])  # fmt: skip
    assert torch.allclose(ours, plain, atol=1e-4)
    grads = []
    for logits in (ours, plain):
        target.zero_grad()
        torch.nn.functional.cross_entropy(logits, batch["tokens"]).backward()
        grads.append(target.model.layers[0].mlp.up_proj.weight.grad.clone())
    assert torch.allclose(*grads, atol=1e-5)
    assert (plain.argmax(-1) == batch["tokens"]).all()  # they are the target's own greedy answers
    hidden = head.hidden(target, batch["input_ids"], batch["keep"])
    assert torch.allclose(target.lm_head(hidden), plain, atol=1e-4)


def test_all_layers_are_the_target_and_some_are_a_drafter(target: LlamaForCausalLM) -> None:
    ids = torch.arange(10)[None]
    whole = cut_model(target, (0, 1, 2), seed=0)
    assert torch.equal(whole(ids).logits, target(ids).logits)
    ends = cut_model(target, (0, 2), seed=0)
    assert num_layers(ends) == 2
    assert torch.equal(ends.model.layers[1].mlp.up_proj.weight, target.model.layers[2].mlp.up_proj.weight)
    assert head_params(ends) < head_params(target)
    with pytest.raises(AlignError, match=r"3 layers \(0 to 2\)"):
        cut_model(target, (3,), seed=0)


@pytest.mark.parametrize("architecture", ["llama", "target"])
def test_a_fresh_shape_is_the_same_each_time(target: LlamaForCausalLM, architecture: str) -> None:
    shape = TINY.model_copy(update={"architecture": architecture})
    one, same, other = (fresh_model(target.config, shape, seed) for seed in (0, 0, 1))
    assert one.config.vocab_size == target.config.vocab_size
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_a_shape_that_makes_no_model_is_refused(target: LlamaForCausalLM) -> None:
    with pytest.raises(AlignError, match="`shape` makes no model"):
        fresh_model(target.config, TINY.model_copy(update={"num_attention_heads": 3, "head_dim": None}), 0)


def test_vocabularies_are_compared_by_what_ids_mean(shop: Path, tmp_path: Path) -> None:
    assert same_vocabulary(str(shop / "base"), str(shop / "target"))
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<x>"])
    tokenizer.save_pretrained(tmp_path)
    text = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text.replace('"a":', '"zz":'))
    assert not same_vocabulary(str(tmp_path), str(shop / "target"))


def test_muon_goes_on_from_its_state(target: LlamaForCausalLM) -> None:
    def made() -> tuple[torch.nn.Module, MuonAdamW]:
        model = fresh_model(target.config, TINY, 0)
        return model, MuonAdamW(model, 1e-2, 0.05)

    def step(model: torch.nn.Module, optimizer: MuonAdamW) -> None:
        optimizer.zero_grad()
        model(torch.arange(12)[None]).logits.float().logsumexp(-1).mean().backward()
        optimizer.step()

    model, optimizer = made()
    step(model, optimizer)
    copy, resumed = made()
    copy.load_state_dict(model.state_dict())
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))  # as from a file: nothing shared
    step(model, optimizer)
    step(copy, resumed)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), copy.parameters(), strict=True))
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in model.parameters()}
    assert all(p.dim() == 2 for p in optimizer.parts[0].param_groups[0]["params"])
