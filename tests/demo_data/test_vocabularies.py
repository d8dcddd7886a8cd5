"""Tokenizers of other families, and the drafters in tests/models that were made with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from sglang_hetero_spec.build.align.models import same_vocabulary
from sglang_hetero_spec.demo.vocabularies import make
from sglang_hetero_spec.demo.vocabularies.families import Family, byte_level_bpe, plain_bytes, sentencepiece
from sglang_hetero_spec.pool.checkpoint import check_checkpoint
from sglang_hetero_spec.vocab.intersection import Relation
from sglang_hetero_spec.vocab.pairing import pair, read_side
from sglang_hetero_spec.vocab.roles import Role
from tests.build.regenerate.fakes import serving
from tests.build.whole import SmallVocabulary

MODELS = Path(__file__).parents[1] / "models"
TEXTS = [
    "The quick brown fox",
    "def f(x):\n    return x + 12\n",
    "two  spaces\tand a tab",
    "\u00fcber \u2014 na\u00efve",
]
HARD = ["\U0001f600 \u65e5\u672c e\u0301", "   leading", "a\r\n\r\n b", "x\u2581y", ""]


@pytest.fixture(scope="module")
def families() -> dict[str, Family]:
    return {
        "bpe": byte_level_bpe(TEXTS * 5, 300),
        "sentencepiece": sentencepiece(TEXTS * 5, 420),
        "bytes": plain_bytes(),
    }


@pytest.mark.parametrize("name", ["bpe", "sentencepiece", "bytes"])
def test_any_text_comes_back(families: dict[str, Family], name: str, tmp_path: Path) -> None:
    families[name].save(tmp_path, 64)
    side, tokenizer = read_side(tmp_path), families[name].tokenizer
    for text in TEXTS + HARD:
        assert side.table.in_the_middle(side.encode(text.encode())) == text.encode()
        if "\u2581" not in text or name != "sentencepiece":
            assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert side.table.first(Role.EOS) is not None


def test_each_is_of_its_family(families: dict[str, Family]) -> None:
    bpe, piece, single = (families[name].tokenizer for name in ("bpe", "sentencepiece", "bytes"))
    assert bpe.encode(" fox").tokens[0].startswith("\u0120")
    assert piece.encode("quick").tokens == ["<s>", "\u2581quick"]
    assert piece.encode("\u65e5").tokens[2:] == ["<0xE6>", "<0x97>", "<0xA5>"]
    assert single.encode("\u65e5").ids == [3 + byte for byte in "\u65e5".encode()]
    assert single.get_vocab_size() == 259


def test_what_lies_in_tests_models(tmp_path: Path) -> None:
    """Vocabularies of three families and other sizes than the target's, each with a part of it; contexts to match."""
    about = json.loads((MODELS / make.MADE).read_text())["models"]
    assert about.keys() == {model.name for model in make.MODELS}
    target_size, relations = 4096, {}
    for name, made in about.items():
        config = check_checkpoint(MODELS / name, name)
        with safe_open(MODELS / name / "model.safetensors", "pt") as file:
            rows = file.get_slice("model.embed_tokens.weight").get_shape()[0]
        pairing = pair(make.TARGET, MODELS / name, draft_vocab_size=rows, cache=tmp_path)
        assert len(pairing.draft.table) == rows == config["vocab_size"]
        assert config["eos_token_id"] == pairing.draft.table.eos[0]
        relations[name] = pairing.shared.relation
        assert (made["vocab"] == "shared") == same_vocabulary(str(MODELS / name), str(make.TARGET))
        assert config["max_position_embeddings"] == (4096 if name == "bytes" else 1024)
        assert made["num_params"] < 1.06 * about["shared"]["num_params"]
        if made["overlap"] is not None:
            assert made["overlap"]["target_percent"] == pairing.shared.target_percent < 75
            assert rows != target_size
    assert relations.pop("shared") == Relation.IDENTICAL
    assert set(relations.values()) == {Relation.DIFFERENT}
    assert sum(path.stat().st_size for path in MODELS.rglob("*")) < 3.5e6


def test_one_command_makes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From nothing but a server with the target (a fake one here): texts, tokenizers, answers, drafters."""
    with serving(SmallVocabulary(context=1024)) as server:
        given = ["--out", str(tmp_path), "--url", server.url, "--quick"]
        assert make.main([*given, "--only", "bytes"]) == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bytes", "made.json"]
        assert sorted(path.name for path in (tmp_path / "bytes").iterdir()) == sorted(make.FILES)
        assert make.main([*given, "--only", "bpe-tli"]) == 0
    about = json.loads((tmp_path / make.MADE).read_text())["models"]
    assert {name: made["vocab"] for name, made in about.items()} == {"bytes": "slem", "bpe-tli": "tli"}
    assert make.main([*given, "--answers", "a.jsonl"]) == 2
    assert "go together" in capsys.readouterr().err
