"""A tiny pool on disk that passes every check, to break in one place at a time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, models

from sglang_hetero_spec.pool import PoolError, load_pool

WORDS = [f"w{index}" for index in range(20)]


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_tokenizer(folder: Path, words: list[str] = WORDS, added: tuple[str, ...] = ("<s>",)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="w0"))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in added])
    tokenizer.save(str(folder / "tokenizer.json"))


def write_weights(path: Path, value: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"w": np.full((2, 2), value, dtype=np.float32)}, str(path))


def write_checkpoint(folder: Path, value: float = 1.0, architecture: str = "LlamaForCausalLM") -> None:
    write_json(folder / "config.json", {"architectures": [architecture], "vocab_size": 21})
    write_weights(folder / "model.safetensors", value)
    write_tokenizer(folder)


def write_router(folder: Path, classes: list[str]) -> None:
    write_json(
        folder / "router.json",
        {"format": "sglang_hetero_spec.router", "schema_version": 1, "classes": classes},
    )
    write_weights(folder / "router.safetensors")


class FakePool:
    """`root` holds the pool, `target` the target's tokenizer; `manifest` is written by `write`."""

    def __init__(self, folder: Path) -> None:
        self.root, self.target = folder / "pool", folder / "target"
        self.manifest_path = self.root / "pool.json"
        write_checkpoint(self.target)
        self.code, self.general = self.root / "drafters" / "code", self.root / "drafters" / "general"
        write_checkpoint(self.code, 1.0)
        write_checkpoint(self.general, 2.0)
        write_router(self.root / "router", ["code", "chat"])
        self.manifest: dict[str, Any] = {
            "format": "sglang_hetero_spec.pool",
            "schema_version": 1,
            "target": {"name_or_path": "tiny"},
            "drafters": [
                {"name": "code", "kind": "standalone", "path": "drafters/code", "vocab": "shared",
                 "num_steps": 3, "topk": 4, "num_draft_tokens": 8},
                {"name": "general", "kind": "standalone", "path": "drafters/general", "num_steps": 4},
                {"name": "off", "kind": "none"},
            ],
            "tasks": [
                {"id": "code", "name": "Python code", "drafter": "code"},
                {"id": "chat", "drafter": "off"},
            ],
            "fallback_drafter": "general",
            "router": {"path": "router", "min_confidence": 0.5},
        }  # fmt: skip
        self.write()

    @property
    def drafters(self) -> list[dict[str, Any]]:
        return self.manifest["drafters"]

    def write(self) -> None:
        write_json(self.manifest_path, self.manifest)

    def refusal(self, *, target: Path | str | None = None) -> str:
        """The message with which the pool is refused now; the manifest is written first."""
        self.write()
        return refusal(self.root, target=target)


def refusal(root: Path | str, *, target: Path | str | None = None) -> str:
    """The message of `load_pool`, checked to be one sentence on one line."""
    with pytest.raises(PoolError) as caught:
        load_pool(root, target=target)
    message = str(caught.value)
    assert "\n" not in message and message.endswith((".", "?")), message
    assert not re.search(r"\. [A-Z]", message), f"more than one sentence: {message}"
    assert "pydantic" not in message and "validation" not in message
    return message
