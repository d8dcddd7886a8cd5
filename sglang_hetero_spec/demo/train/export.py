"""Writes models, the pool's manifest and the task list in their published formats."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from sglang_hetero_spec.demo.data import TASK_NAMES
from sglang_hetero_spec.demo.train.model import Shape, TinyLlama
from sglang_hetero_spec.demo.train.tokenizer import BOS, EOS, PAD, save_tokenizer

GENERAL = "general"
NONE = "none"
NUM_STEPS = 4
MIN_CONFIDENCE = 0.5


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_json(path: Path, value: object) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def save_model(model: TinyLlama, tokenizer: Tokenizer, directory: Path) -> None:
    """A directory that transformers and SGLang load: config, bf16 weights, tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: p.detach().bfloat16().contiguous() for name, p in model.named_parameters()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    ids = (tokenizer.token_to_id(token) for token in (BOS, EOS, PAD))
    write_json(directory / "config.json", model.shape.config(*ids))
    bos, eos, pad = (tokenizer.token_to_id(token) for token in (BOS, EOS, PAD))
    write_json(directory / "generation_config.json", {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad})
    save_tokenizer(tokenizer, directory, model.shape.context)


def load_model(directory: Path) -> TinyLlama:
    """A model that `save_model` wrote, in float32 (holding the bf16 values)."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    shape = Shape(
        hidden=config["hidden_size"], layers=config["num_hidden_layers"], heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"], intermediate=config["intermediate_size"], vocab=config["vocab_size"],
        context=config["max_position_embeddings"], head_dim=config["head_dim"],
    )  # fmt: skip
    model = TinyLlama(shape)
    tensors = {name: t.to(torch.float32) for name, t in load_file(directory / "model.safetensors").items()}
    model.load_state_dict(tensors)
    return model.eval()


def write_pool(pool: Path, target: Path, tasks: Sequence[str], has_router: bool) -> None:
    """pool.json, last of all: one drafter per task, the general one (fallback), and `none`."""
    drafters: list[dict[str, object]] = []
    for name in [*tasks, GENERAL]:
        directory = pool / "drafters" / name
        drafters.append(
            {
                "name": name, "kind": "standalone", "path": f"drafters/{name}", "vocab": "shared",
                "num_steps": NUM_STEPS, "topk": 1, "num_draft_tokens": NUM_STEPS + 1,
                "weights_sha256": sha256(directory / "model.safetensors"),
                "tokenizer_sha256": sha256(directory / "tokenizer.json"),
            }
        )  # fmt: skip
    drafters.append({"name": NONE, "kind": NONE})
    manifest: dict[str, object] = {
        "format": "sglang_hetero_spec.pool",
        "schema_version": 1,
        "target": {"name_or_path": "../target", "tokenizer_sha256": sha256(target / "tokenizer.json")},
        "drafters": drafters,
        "tasks": [{"id": task, "name": TASK_NAMES[task], "drafter": task} for task in tasks],
        "fallback_drafter": GENERAL,
    }
    if has_router:
        manifest["router"] = {"path": "router", "min_confidence": MIN_CONFIDENCE}
    write_json(pool / "pool.json", manifest)


def write_tasks(pool: Path, prompts: Mapping[str, Sequence[str]]) -> None:
    """tasks.json: size, most telling terms and a few prompts of each task."""
    words = {task: Counter(re.findall(r"[A-Za-z_]{3,}", " ".join(texts).lower())) for task, texts in prompts.items()}
    total = sum(words.values(), Counter())
    write_json(
        pool / "tasks.json",
        [
            {
                "id": task,
                "name": TASK_NAMES[task],
                "size": len(prompts[task]),
                "top_terms": sorted(counts, key=lambda w: (-(counts[w] ** 1.5) / total[w] ** 0.5, w))[:10],
                "examples": list(prompts[task][:3]),
            }
            for task, counts in words.items()
        ],
    )
