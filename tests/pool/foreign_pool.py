"""A pool with one drafter whose tokenizer is not the target's; both are real ones, trained in tests/vocab."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from fake_pool import FakePool, write_checkpoint, write_json

from tests.vocab.made_tokenizers import folder_of

TARGET = "gpt2"


class ForeignPool(FakePool):
    """`folder` holds the drafter `draft`; `entry` is its part of the manifest."""

    def __init__(self, folder: Path, draft: str = "llama2", target: str = TARGET, vocab: str = "tli") -> None:
        self.root, self.target = folder / "pool", folder / "target"
        self.manifest_path = self.root / "pool.json"
        self.folder = self.root / "drafters" / "draft"
        self.entry: dict[str, Any] = {
            "name": "draft", "kind": "standalone", "path": "drafters/draft", "vocab": vocab, "num_steps": 4
        }  # fmt: skip
        self.manifest = {
            "format": "sglang_hetero_spec.pool",
            "schema_version": 1,
            "drafters": [self.entry],
            "fallback_drafter": "draft",
        }
        put_model(self.target, target)
        put_model(self.folder, draft)
        self.write()

    @property
    def field(self) -> str:
        return f"{self.manifest_path}: `drafters[0].vocab` is {json.dumps(self.entry['vocab'])}"

    def write_examples(self, *texts: str) -> None:
        write_json(self.root / "tasks.json", [{"id": "t", "name": "t", "size": 7, "examples": list(texts)}])


def put_model(folder: Path, tokenizer: str, num_padding: int = 3) -> None:
    """A checkpoint with this tokenizer, and a few embeddings more than it has ids."""
    write_checkpoint(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder_of(tokenizer) / file, folder)
    write_size(folder, num_ids(folder) + num_padding)


def write_size(folder: Path, size: int, **more: object) -> None:
    write_json(folder / "config.json", {"architectures": ["LlamaForCausalLM"], "vocab_size": size, **more})


def num_ids(folder: Path) -> int:
    parsed = read(folder / "tokenizer.json")
    ids = [*parsed["model"]["vocab"].values(), *(token["id"] for token in parsed["added_tokens"])]
    return max(ids) + 1


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def permute(folder: Path) -> None:
    """The same tokens under other ids: those of text, the other way round."""
    parsed = read(folder / "tokenizer.json")
    vocab = parsed["model"]["vocab"]
    added = {token["content"] for token in parsed["added_tokens"]}
    text = [token for token in vocab if token not in added]
    ids = sorted((vocab[token] for token in text), reverse=True)
    vocab.update(zip(text, ids, strict=True))
    write_json(folder / "tokenizer.json", parsed)
