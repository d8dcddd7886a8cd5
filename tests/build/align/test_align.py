"""Whole alignments on a tiny target."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from sglang_hetero_spec.build.align import AlignError, AlignResult, DivergedError, align
from sglang_hetero_spec.build.align.trainer import AlignTrainer
from sglang_hetero_spec.build.locks import LockedError, directory_lock
from sglang_hetero_spec.pool import weights_sha256
from sglang_hetero_spec.pool.checkpoint import check_checkpoint
from tests.build.align import toy
from tests.support.tiny_models import byte_tokenizer, write_tiny_model


def rate(counts: dict[str, Any]) -> float:
    return sum(counts["correct_by_position"]) / counts["proposed_drafts"]


def gained(result: AlignResult, task: str = "digits") -> float:
    figures = result.made["heldout"][task]
    return rate(figures["after"]) - rate(figures["before"])


@pytest.fixture(scope="module")
def finished(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> AlignResult:
    return align(toy.request(shop, tmp_path_factory.mktemp("done") / "digits"))


def test_a_drafter_comes_closer_to_its_target(shop: Path, finished: AlignResult) -> None:
    assert gained(finished) > 0.02
    model = AutoModelForCausalLM.from_pretrained(finished.out)
    assert model.num_parameters() == finished.made["num_params"]
    assert AutoTokenizer.from_pretrained(finished.out).decode([40, 41])
    assert (finished.out / "tokenizer.json").read_bytes() == (shop / "target" / "tokenizer.json").read_bytes()
    assert finished.made["weights_sha256"] == weights_sha256(finished.out)
    assert not (finished.out / ".work").exists()


def test_the_curve_holds_raw_counts(finished: AlignResult) -> None:
    points = [json.loads(line) for line in (finished.out / "curve.jsonl").read_text().splitlines()]
    assert len(points) == 5
    assert [point["step"] for point in points] == sorted({point["step"] for point in points})
    assert points[-1]["tokens"] >= finished.made["trained"]["tokens"]
    assert points[0]["loss"] is None and points[-1]["loss"] < points[1]["loss"]
    assert {"requests", "verify_steps", "proposed_drafts", "correct_by_position"} <= points[0]["counts"].keys()


def test_a_finished_one_is_not_repeated_and_not_overwritten(shop: Path, finished: AlignResult) -> None:
    again = align(toy.request(shop, finished.out))
    assert not again.is_new
    assert again.made == finished.made
    with pytest.raises(AlignError, match="other answers or settings"):
        align(toy.request(shop, finished.out, epochs=7.0))


def test_a_folder_with_a_model_of_its_own_is_left_alone(shop: Path) -> None:
    before = weights_sha256(shop / "base")
    with pytest.raises(AlignError, match="not ours"):
        align(toy.request(shop, shop / "base"))
    assert weights_sha256(shop / "base") == before


def test_weights_are_stored_as_the_targets_are(shop: Path, tmp_path: Path) -> None:
    target = AutoModelForCausalLM.from_pretrained(shop / "target", dtype=torch.bfloat16)
    target.save_pretrained(tmp_path / "target")
    byte_tokenizer().save_pretrained(tmp_path / "target")
    asked = replace(toy.request(shop, tmp_path / "out", epochs=0.5), target=str(tmp_path / "target"))
    align(asked)
    assert check_checkpoint(tmp_path / "out", "test")["dtype"] == "bfloat16"
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_two_runs_into_one_folder_are_refused(shop: Path, tmp_path: Path) -> None:
    with directory_lock(tmp_path, "align"), pytest.raises(LockedError, match="in use"):
        align(toy.request(shop, tmp_path))


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "reverse_kl", "cache": "topk", "cache_topk": 32},
        {"loss": "tvd++", "cache": "none", "bf16": True},
        {"loss": "ce", "optimizer": "muon", "gradient_accumulation": 2},
    ],
    ids=["reverse-topk", "tvd-live-bf16", "ce-muon"],
)
def test_every_way_of_learning_helps(shop: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    assert gained(align(toy.request(shop, tmp_path / "out", **changes))) > 0


def test_the_general_drafter_sees_all_tasks(shop: Path, tmp_path: Path) -> None:
    found = align(toy.request(shop, tmp_path / "out", task=None, tokens=1000, evaluations=1)).made
    assert found["heldout"].keys() == {"digits", "letters"}
    assert 2000 <= found["trained"]["tokens"] < 2100
    assert found["task"] is None


def test_lora_leaves_an_adapter_that_peft_loads(shop: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    found = align(toy.request(shop, tmp_path / "out", lora={"r": 4}, learning_rate=1e-2))
    assert found.made["kind"] == "lora"
    assert gained(found) > 0
    assert (found.out / "adapter_config.json").is_file() and (found.out / "tokenizer.json").is_file()
    base = AutoModelForCausalLM.from_pretrained(shop / "base")
    ids = torch.arange(12)[None]
    before = base(ids).logits
    assert not torch.allclose(before, PeftModel.from_pretrained(base, found.out)(ids).logits)
    with pytest.raises(AlignError, match="--base"):
        align(toy.request(shop, tmp_path / "other", use_base=False, lora={"r": 4}))


def test_without_a_drafter_layers_and_loss_are_chosen_by_measurement(shop: Path, tmp_path: Path) -> None:
    asked = toy.request(shop, tmp_path / "out", use_base=False, layers=2, loss="auto", probe_tokens=300, epochs=2.0)
    found = align(asked).made
    tried = {probe["start"]: probe for probe in found["probes"]}
    assert tried.keys() == {
        "layers-0-1-forward_kl", "layers-0-2-forward_kl",
        *(f"layers-{'-'.join(map(str, found['start']['layers']))}-{loss}" for loss in ("reverse_kl", "tvdpp")),
    }  # fmt: skip
    best = max(probe["speed"] for name, probe in tried.items() if name.endswith("forward_kl"))
    mine = [probe for probe in tried.values() if probe["layers"] == found["start"]["layers"]]
    assert best in [probe["speed"] for probe in mine]
    assert found["used"]["loss"] == max(mine, key=lambda probe: probe["speed"])["loss"]


def test_another_vocabulary_learns_by_tokens(shop: Path, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "other", seed=9, shape=toy.SHAPE, spread=0.05)
    tokenizer = byte_tokenizer()
    text = tokenizer.backend_tokenizer.to_str()
    swapped = json.loads(text)
    vocab = swapped["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    path = other / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model": swapped["model"]}))
    asked = replace(toy.request(shop, tmp_path / "out", vocab="slem"), base=str(other))
    with pytest.raises(AlignError, match="set `loss: ce`"):
        align(asked)
    made = align(replace(asked, settings=toy.settings(loss="ce", vocab="slem", epochs=1.0))).made
    assert not made["vocab_shared"]
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == path.read_bytes()


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = AlignTrainer.compute_loss

    def poisoned(self: AlignTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == self.run.steps - 1:
            torch.nn.init.constant_(next(self.model.parameters()), float("nan"))
        return honest(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(AlignTrainer, "compute_loss", poisoned)
        with pytest.raises(DivergedError, match=r"`digits` diverged: the loss is not finite") as caught:
            align(toy.request(shop, tmp_path))
    assert caught.value.checkpoint is not None and (caught.value.checkpoint / "model.safetensors").is_file()
    assert not (tmp_path / "align.json").exists()
    assert align(toy.request(shop, tmp_path)).is_new  # the cause gone, it goes on from there


def test_a_learning_rate_out_of_all_reason_is_one_sentence(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="lower `learning_rate`"):
        align(toy.request(shop, tmp_path, learning_rate=1e30))


def test_a_full_disk_keeps_what_is_there(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: AlignTrainer, *_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(AlignTrainer, "_save_optimizer_and_scheduler", full)
        with pytest.raises(AlignError, match=r"cannot be written.*No space left.*run the same command again"):
            align(toy.request(shop, tmp_path, epochs=2.0))
    assert align(toy.request(shop, tmp_path, epochs=2.0)).is_new


def test_it_stops_when_nothing_gets_better(shop: Path, tmp_path: Path) -> None:
    made = align(toy.request(shop, tmp_path / "out", learning_rate=1e-12, patience=2, evaluations=8)).made
    assert made["trained"]["best_step"] == 0
    assert made["trained"]["steps"] < made["trained"]["planned_steps"]
    assert made["heldout"]["digits"]["before"] == made["heldout"]["digits"]["after"]


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("target", "/nowhere/at-all", "--target /nowhere/at-all does not load"),
        ("base", "/nowhere/at-all", "--base /nowhere/at-all does not load"),
        ("answers", Path("/nowhere.jsonl"), "/nowhere.jsonl cannot be read"),
        ("task", "sums", "no answer of the task `sums`"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(shop: Path, tmp_path: Path, field: str, value: Any, says: str) -> None:
    with pytest.raises(AlignError) as caught:
        align(replace(toy.request(shop, tmp_path / "out"), **{field: value}))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_answers_of_another_target_are_refused(shop: Path, tmp_path: Path) -> None:
    small = write_tiny_model(tmp_path / "small", seed=1, shape=replace(toy.SHAPE, vocab_size=50))
    with pytest.raises(AlignError, match="token id"):
        align(replace(toy.request(shop, tmp_path / "out", use_base=False, layers=1), target=str(small)))


def test_prompts_that_fill_the_context_are_refused(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(AlignError, match="context of 4 tokens"):
        align(toy.request(shop, tmp_path / "out", max_row_tokens=4))
