"""Drafters whose vocabulary is not the target's: how they read its answers, what they learn and are counted in."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from sglang_hetero_spec.build.align import AlignError, AlignResult, align
from sglang_hetero_spec.build.align.answers import NOT_SHARED, Row, fit_context
from sglang_hetero_spec.build.align.batches import AnswerHead, as_tensors
from sglang_hetero_spec.build.align.cache import CacheSpec, fill
from sglang_hetero_spec.build.align.evaluate import first_choices
from sglang_hetero_spec.build.align.losses import cross_entropy, forward_kl
from sglang_hetero_spec.build.align.own_vocab import OwnVocab, tokenizer_folder
from sglang_hetero_spec.build.align.teacher import HiddenTeacher, LiveTeacher, TopKTeacher
from sglang_hetero_spec.commands import align as command
from sglang_hetero_spec.pool import PoolError, write_pool_manifest
from sglang_hetero_spec.vocab.errors import VocabError
from tests.build.align import toy

DEMO = Path(__file__).parents[3] / "sglang_hetero_spec" / "demo" / "assets" / "target"
MODELS = Path(__file__).parents[2] / "models"
FAMILIES = ("bpe", "sentencepiece", "bytes")
TEXTS = (
    ("Solve the problem.\nA farm has 12 cows.\n\n", "It has 12 + 7 = 19 cows.\nThe answer is 19."),
    ("Write a Python function.\n\n", "def f(x):\n    return [x for _ in range(3)]\n"),
    ("Sag es auf Deutsch: the door\n\n", "Die T\u00fcr \u2014 sch\u00f6n! \U0001f600\u65e5\u672c"),
    ("a\t b", "  c\r\n\r\n   d"),
)
SHAPE = {
    "hidden_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64,
    "intermediate_size": 40,
}  # fmt: skip


def own(name: str, mode: str, tmp_path: Path) -> OwnVocab:
    return OwnVocab.find(DEMO, MODELS / name, mode, demo_rows(), (4096, None), tmp_path)


def demo_rows() -> list[Row]:
    """Texts in the ids of the demo's target: a prompt with its bos, an answer with its eos."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    rows = []
    for number, (prompt, answer) in enumerate(TEXTS):
        said = (*tokenizer.encode(answer, add_special_tokens=False).ids, 2)
        rows.append(Row(str(number), "t", tuple(tokenizer.encode(prompt).ids), said, answer, "stop"))
    return rows


@pytest.mark.parametrize("name", FAMILIES)
def test_the_text_is_read_in_the_drafters_own_tokens(name: str, tmp_path: Path) -> None:
    vocab = own(name, "slem", tmp_path)
    draft = vocab.pairing.draft
    for row, said in zip(vocab.rows(demo_rows()), demo_rows(), strict=True):
        prompt, answer = (text.encode() for text in TEXTS[int(row.id)])
        assert row.prompt[: len(draft.begin)] == draft.begin
        assert row.answer[-1] == draft.table.eos[0]
        assert draft.table.in_the_middle([*row.prompt, *row.answer]).lstrip(b" ") == prompt + answer
        # As it would be written as a whole; a SentencePiece text begins with a space.
        start = b" " if name == "sentencepiece" else b""
        assert [*row.prompt, *row.answer][len(draft.begin) : -1] == draft.encode(start + prompt + answer)
        assert row.by_target == said and row.task == "t"


def test_a_token_across_the_end_of_a_prompt_is_the_answers(tmp_path: Path) -> None:
    (said,) = [row for row in demo_rows() if row.id == "3"]
    vocab = own("bpe", "slem", tmp_path)
    table, draft = vocab.pairing.draft.table, vocab.pairing.draft
    ids = [*vocab.pairing.target.encode(b"the ans")], [*vocab.pairing.target.encode(b"wer is")]
    (row,) = vocab.rows([replace(said, prompt=tuple(ids[0]), answer=tuple(ids[1]))])
    assert list(row.prompt + row.answer) == draft.encode(b"the answer is")
    assert table.in_the_middle(row.prompt) == b"the"


@pytest.mark.parametrize("name", FAMILIES)
def test_token_by_token_every_place_predicts_its_token(name: str, tmp_path: Path) -> None:
    vocab = own(name, "tli", tmp_path)
    shared, target, draft = vocab.pairing.shared, vocab.pairing.target.table, vocab.pairing.draft.table
    assert vocab.draft_ids is not None and vocab.target_ids is not None
    known = shared.shared_targets
    kinds = set()
    for row in vocab.rows(demo_rows()):
        said, ids = row.by_target, row.prompt + row.answer
        places, labels = row.scored
        assert len(places) == len(labels) == len(said.answer)
        for number, (place, label, token) in enumerate(zip(places, labels, said.answer, strict=True)):
            read = draft.in_the_middle(ids[: place + 1])
            assert read == target.in_the_middle(said.prompt + said.answer[:number])
            kinds.add(label == NOT_SHARED)
            assert (label == NOT_SHARED) == (not known[token])
            if label != NOT_SHARED:
                assert vocab.target_ids[label] == token
                assert draft.piece(int(vocab.draft_ids[label])) == target.piece(token)
    assert kinds == {True, False}


def test_what_is_cut_is_cut_on_both_sides(tmp_path: Path) -> None:
    (whole, *_) = own("bytes", "tli", tmp_path).rows(demo_rows())
    most = len(whole.prompt) + 9
    (row,) = fit_context([whole], most)
    assert len(row) == most and row.places is not None and row.labels is not None
    assert len(row.places) == len(row.labels) == len(row.by_target.answer) < len(whole.by_target.answer)
    assert max(row.places) < most
    assert as_tensors([row])["keep"].max() < most
    assert fit_context([whole], len(whole.prompt)) == ()


def test_every_teacher_says_the_same_of_the_shared_tokens(shop: Path, tmp_path: Path) -> None:
    target = AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32).eval()
    vocab = own("bpe", "tli", tmp_path)
    only, rows = vocab.target_ids, vocab.rows(demo_rows())
    assert only is not None
    said = [row.by_target for row in rows]
    head, size = AnswerHead(target, only), len(only)
    shards = {
        kind: fill(tmp_path, said, CacheSpec(kind, "t", "f", size, size, "x"), target, head, 200, print)
        for kind in ("hidden", "topk")
    }
    teachers = (
        LiveTeacher(target, head, size),
        HiddenTeacher(target.get_output_embeddings(), shards["hidden"], size, only),
        TopKTeacher(shards["topk"], size),
    )
    batch = as_tensors(rows)
    student = torch.randn(len(batch["tokens"]), size, generator=torch.Generator().manual_seed(0))
    live, hidden, topk = (forward_kl(*t.pair(student, {**batch, **t.columns(rows)})).item() for t in teachers)
    assert hidden == pytest.approx(live, rel=2e-2)
    assert topk == pytest.approx(live, rel=1e-3)
    with torch.no_grad():
        plain = as_tensors(said)
        logits = AnswerHead(target).logits(target, plain["input_ids"], plain["keep"])
        assert torch.equal(
            teachers[0].log_probs({**teachers[0].columns(rows)}).exp().argmax(-1), logits[:, only].argmax(-1)
        )


def test_tokens_that_are_not_shared_teach_nothing() -> None:
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([2, NOT_SHARED, 4]))
    loss.backward()
    assert logits.grad is not None and logits.grad[1].abs().sum() == 0 and logits.grad[0].abs().sum() > 0
    assert cross_entropy(logits, torch.tensor([2, NOT_SHARED, 4])) == cross_entropy(
        logits[[0, 2]], torch.tensor([2, 4])
    )
    assert cross_entropy(logits, torch.full((3,), NOT_SHARED)) == 0


def permuted(target: Path, out: Path) -> Path:
    """The same model with its ids, and the ids of its tokenizer, in another order."""
    model = LlamaForCausalLM.from_pretrained(target)
    size = model.config.vocab_size
    order = torch.randperm(size, generator=torch.Generator().manual_seed(3))
    for weight in (model.model.embed_tokens.weight, model.lm_head.weight):
        weight.data = weight.data[order].clone()
    new = {old: place for place, old in enumerate(order.tolist())}
    model.config.bos_token_id = model.generation_config.bos_token_id = new[0]
    model.config.eos_token_id = model.generation_config.eos_token_id = new[1]
    model.save_pretrained(out)
    made = json.loads((target / "tokenizer.json").read_text())
    made["model"]["vocab"] = {token: new[i] for token, i in made["model"]["vocab"].items()}
    made["added_tokens"] = [{**token, "id": new[token["id"]]} for token in made["added_tokens"]]
    (out / "tokenizer.json").write_text(json.dumps(made))
    (out / "tokenizer_config.json").write_bytes((target / "tokenizer_config.json").read_bytes())
    return out


@pytest.mark.parametrize(("mode", "loss"), [("tli", "forward_kl"), ("slem", "ce")])
def test_the_target_itself_in_other_ids_is_always_right(shop: Path, tmp_path: Path, mode: str, loss: str) -> None:
    other = permuted(shop / "target", tmp_path / "other")
    rows = toy.answers(shop / "target", per_task=8)
    vocab = OwnVocab.find(shop / "target", other, mode, rows, (258, 258), tmp_path)
    model = LlamaForCausalLM.from_pretrained(other).eval()
    (hits,) = first_choices(model, AnswerHead(model, vocab.draft_ids), vocab.rows(rows), 256)
    assert all(all(row) for row in hits) and sum(map(len, hits)) > 100
    asked = replace(toy.request(shop, tmp_path / "out", loss=loss, vocab=mode, epochs=0.5), base=str(other))
    made = align(asked).made
    before = made["heldout"]["digits"]["before"]
    assert sum(before["correct_by_position"]) > 0.8 * before["proposed_drafts"]  # the last step of an answer is cut
    assert made["vocab"] == mode and not made["vocab_shared"]
    assert made["overlap"]["target_percent"] > 99  # all but bos, which nobody proposes


@pytest.fixture(scope="module")
def demo_answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the demo's target says to a few prompts of its kind."""
    target = AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32).eval()
    texts = [f"Write a Python function that counts {a} in {b} {c}.\n\n" for a in "468" for b in "579" for c in "abcd"]
    prompts = torch.tensor([[1, *own_ids(text)] for text in texts])
    found = target.generate(prompts, max_new_tokens=24, do_sample=False, pad_token_id=0)[:, prompts.shape[1] :]
    rows = [
        Row(text, "python", tuple(prompt), tuple(answer), text, "length")
        for text, prompt, answer in zip(texts, prompts.tolist(), found.tolist(), strict=True)
    ]
    return toy.write_answers(tmp_path_factory.mktemp("demo") / "answers.jsonl", rows)


def own_ids(text: str) -> list[int]:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(DEMO / "tokenizer.json")).encode(text, add_special_tokens=False).ids


def made_for_demo(answers: Path, out: Path, name: str, **changes: Any) -> AlignResult:
    learn = {"optimizer": "muon", "learning_rate": 2e-2, "epochs": 12.0, "evaluations": 1}
    request = toy.request(answers.parent, out, task=None, use_base=False, shape=SHAPE, **learn, **changes)
    return align(replace(request, target=str(DEMO), answers=answers, tokenizer=str(MODELS / name)))


@pytest.mark.parametrize(
    ("name", "mode", "loss", "size"),
    [("bpe", "tli", "forward_kl", 3500), ("sentencepiece", "slem", "ce", 4352), ("bytes", "auto", "ce", 259)],
)
def test_a_fresh_drafter_with_another_tokenizer(
    demo_answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, mode: str, loss: str, size: int
) -> None:
    out = tmp_path / "out"
    result = made_for_demo(demo_answers, out, name, vocab=mode, loss=loss)
    made = result.made
    counts = {when: made["heldout"]["python"][when] for when in ("before", "after")}
    rates = {when: sum(found["correct_by_position"]) / found["proposed_drafts"] for when, found in counts.items()}
    assert rates["after"] > rates["before"] + 0.1
    model = AutoModelForCausalLM.from_pretrained(out)
    table = own(name, "slem", tmp_path).pairing.draft.table
    assert model.config.vocab_size == size == len(table)
    assert model.config.eos_token_id == model.generation_config.eos_token_id == table.eos[0]
    assert (out / "tokenizer.json").read_bytes() == (MODELS / name / "tokenizer.json").read_bytes()
    served = "slem" if mode == "auto" else mode  # bytes share too little of what the target writes
    assert made["vocab"] == served
    assert (made["counted_in"] == "target tokens") == (served == "tli")
    steps = counts["after"]["verify_steps"]
    command._print_table(result)
    said = " ".join(capsys.readouterr().out.split())
    per_step = f"{made['heldout_bytes']['python'] / steps:.1f} bytes of text"
    assert (per_step in said) == (served == "slem")
    in_target_tokens = counts["after"]["completion_tokens"] == 24 * counts["after"]["requests"]
    assert in_target_tokens == (served == "tli")
    entry = {"name": "d", "kind": "standalone", "path": str(out), "external": True, "num_steps": 4}
    (tmp_path / "pool").mkdir()
    write = {"drafters": [{**entry, "vocab": served}], "fallback_drafter": "d", "target": str(DEMO)}
    assert write_pool_manifest(tmp_path / "pool", **write).drafters[0].vocab == served
    with pytest.raises(PoolError, match="shared"):
        write_pool_manifest(tmp_path / "pool", **{**write, "drafters": [{**entry, "vocab": "shared"}]})


def test_settings_that_do_not_go_together(demo_answers: Path, shop: Path, tmp_path: Path) -> None:
    with pytest.raises(AlignError, match=r"`vocab: slem` does not propose; set `loss: ce`"):
        made_for_demo(demo_answers, tmp_path / "a", "bpe", vocab="slem")
    asked = replace(toy.request(shop, tmp_path / "b"), tokenizer=str(MODELS / "bpe"))
    with pytest.raises(AlignError, match=r"has a tokenizer of its own; give `shape` and no --base"):
        align(asked)
    with pytest.raises(AlignError, match="the target's layers read its tokens"):
        align(replace(asked, base=None, out=tmp_path / "c"))
    (tmp_path / "empty").mkdir()
    fresh = replace(asked, base=None, settings=toy.settings(shape=SHAPE))
    with pytest.raises(AlignError, match=r"empty has no tokenizer\.json"):
        align(replace(fresh, tokenizer=str(tmp_path / "empty"), out=tmp_path / "d"))
    broken = tmp_path / "broken"
    broken.mkdir()
    made = json.loads((MODELS / "bpe" / "tokenizer.json").read_text())
    (broken / "tokenizer.json").write_text(json.dumps({**made, "decoder": None}))
    with pytest.raises(VocabError, match="has no decoder"):
        align(replace(fresh, tokenizer=str(broken), out=tmp_path / "e"))


def test_a_tokenizer_named_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a download leaves it. A name that is nowhere has none."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    home = tmp_path / "hub" / "models--org--words"
    (home / "snapshots").mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    shutil.copytree(MODELS / "bpe", home / "snapshots" / commit)
    for name, value in (("HF_HUB_CACHE", str(tmp_path / "hub")), ("HF_HUB_OFFLINE", True)):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    assert tokenizer_folder("org/words", tmp_path / "saved") == home / "snapshots" / commit
    assert tokenizer_folder("org/nothing", tmp_path / "saved") is None
    assert tokenizer_folder(str(MODELS / "bpe"), tmp_path / "saved") == MODELS / "bpe"
    assert tokenizer_folder(str(tmp_path), tmp_path / "saved") is None


def test_the_targets_own_tokenizer_is_no_other_vocabulary(shop: Path, tmp_path: Path) -> None:
    asked = toy.request(shop, tmp_path / "out", use_base=False, shape=SHAPE, epochs=0.5)
    made = align(replace(asked, tokenizer=str(shop / "target"))).made
    assert made["vocab_shared"] and made["vocab"] == "shared" and made["counted_in"] == "target tokens"
