"""Models for speed on a GPU, made there in seconds: real shapes and real work, answers known beforehand.

The next token of the target is a permutation of the last one, within one of TASKS blocks of the vocabulary; attention
and MLP run at full cost and hardly move the logits. A drafter knows a share of the permutation of each block: that is
its accept rate there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from sglang_hetero_spec.pool.adapter import CONFIG_FILE, PROJECTIONS, WEIGHTS_FILE

TASKS = 4
FIRST_ID = 300  # below are the tokenizer's bytes
PEAK = 48.0


@dataclass(frozen=True)
class Shape:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    inner: int
    vocab_size: int = 32768
    max_len: int = 40960

    @property
    def num_params(self) -> int:
        head = self.hidden // self.heads
        attention = 2 * self.hidden * (self.heads + self.kv_heads) * head
        return self.layers * (attention + 3 * self.hidden * self.inner) + 2 * self.vocab_size * self.hidden


TARGETS = {
    "small": Shape(2048, 12, 16, 8, 5632),
    "medium": Shape(4096, 16, 32, 8, 11008),
    "large": Shape(5120, 40, 40, 8, 13824),
}
DRAFT = Shape(1024, 4, 16, 8, 2816)


def block(vocab_size: int, task: int) -> range:
    size = (vocab_size - FIRST_ID) // TASKS
    return range(FIRST_ID + task * size, FIRST_ID + (task + 1) * size)


def successors(vocab_size: int) -> torch.Tensor:
    """[V] int64, the next token of each; one cycle through each block."""
    generator = torch.Generator().manual_seed(0)
    following = torch.arange(vocab_size)
    for task in range(TASKS):
        ids = torch.tensor(block(vocab_size, task))
        order = ids[torch.randperm(len(ids), generator=generator)]
        following[order] = order.roll(-1)
    return following


def known(following: torch.Tensor, shares: Sequence[float], seed: int) -> torch.Tensor:
    """The successors as a drafter has them: right for a share of each block's tokens."""
    generator = torch.Generator().manual_seed(seed)
    guess = following.clone()
    for task, share in enumerate(shares):
        ids = torch.tensor(block(following.shape[0], task))
        wrong = ids[torch.rand(len(ids), generator=generator) >= share]
        guess[wrong] = ids[torch.randint(len(ids), (len(wrong),), generator=generator)]
    return guess


def write_model(folder: Path, shape: Shape, following: torch.Tensor, seed: int, device: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    head = shape.hidden // shape.heads

    def noise(*size: int, scale: float) -> torch.Tensor:
        return (torch.randn(*size, device=device, dtype=torch.bfloat16) * scale).cpu()

    embedding = torch.randn(shape.vocab_size, shape.hidden, device=device)
    embedding = embedding / embedding.norm(dim=1, keepdim=True) * shape.hidden**0.5
    output = torch.zeros_like(embedding)
    output.index_add_(0, following.to(device), embedding * (PEAK / shape.hidden))
    ones = torch.ones(shape.hidden, dtype=torch.bfloat16)
    weights = {
        "model.embed_tokens.weight": embedding.bfloat16().cpu(),
        "lm_head.weight": output.bfloat16().cpu(),
        "model.norm.weight": ones,
    }
    wide, small = shape.hidden**-0.5, 0.02 * shape.hidden**-0.5
    for layer in range(shape.layers):
        name = f"model.layers.{layer}"
        weights[f"{name}.input_layernorm.weight"] = ones.clone()
        weights[f"{name}.post_attention_layernorm.weight"] = ones.clone()
        for part, heads in (("q", shape.heads), ("k", shape.kv_heads), ("v", shape.kv_heads)):
            weights[f"{name}.self_attn.{part}_proj.weight"] = noise(heads * head, shape.hidden, scale=wide)
        weights[f"{name}.self_attn.o_proj.weight"] = noise(shape.hidden, shape.heads * head, scale=small)
        for part in ("gate", "up"):
            weights[f"{name}.mlp.{part}_proj.weight"] = noise(shape.inner, shape.hidden, scale=wide)
        weights[f"{name}.mlp.down_proj.weight"] = noise(shape.hidden, shape.inner, scale=small)
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config(shape)))
    _tokenizer(folder)
    return folder


def _config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.hidden // shape.heads,
        "hidden_act": "silu",
        "max_position_embeddings": shape.max_len,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "vocab_size": shape.vocab_size,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }


def _tokenizer(folder: Path) -> None:
    from tests.support.tiny_models import byte_tokenizer

    byte_tokenizer().save_pretrained(folder)


def write_adapter(folder: Path, shape: Shape, base: str, rank: int, seed: int) -> Path:
    """A peft adapter of all projections that costs what any costs and hardly changes what the base says."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    head = shape.hidden // shape.heads
    wide, narrow = shape.heads * head, shape.kv_heads * head
    sizes = {
        "q_proj": (shape.hidden, wide),
        "k_proj": (shape.hidden, narrow),
        "v_proj": (shape.hidden, narrow),
        "o_proj": (wide, shape.hidden),
        "gate_proj": (shape.hidden, shape.inner),
        "up_proj": (shape.hidden, shape.inner),
        "down_proj": (shape.inner, shape.hidden),
    }
    weights = {}
    for layer in range(shape.layers):
        for name, (inputs, outputs) in sizes.items():
            part = "mlp" if name in ("gate_proj", "up_proj", "down_proj") else "self_attn"
            key = f"base_model.model.model.layers.{layer}.{part}.{name}"
            weights[f"{key}.lora_A.weight"] = torch.randn(rank, inputs) * inputs**-0.5
            weights[f"{key}.lora_B.weight"] = torch.randn(outputs, rank) * 1e-3
    save_file(weights, str(folder / WEIGHTS_FILE))
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": list(PROJECTIONS)}
    (folder / CONFIG_FILE).write_text(json.dumps(config | {"base_model_name_or_path": base}))
    return folder


@dataclass(frozen=True)
class Made:
    """general: knows all blocks alike. pools: `one` has it alone, `four` a drafter for each block, `lora` general with
    four adapters, `kinds` one of each kind: a chain, a tree, an adapter, copies."""

    target: Path
    general: Path
    pools: dict[str, Path]


def make(root: Path, target: Shape, device: str = "cuda", draft: Shape = DRAFT, steps: int = 4, rank: int = 8) -> Made:
    following = successors(target.vocab_size)
    made_target = write_model(root / "target", target, following, 1, device)
    general = write_model(root / "general", draft, known(following, [0.6] * TASKS, 2), 2, device)
    folders = {"general": general}
    for task in range(TASKS):
        shares = [0.9 if other == task else 0.4 for other in range(TASKS)]
        name = f"task{task}"
        folders[name] = write_model(root / name, draft, known(following, shares, 3 + task), 3 + task, device)
    entries = {name: _entry(name, path, steps) for name, path in folders.items()}
    adapters = []
    for number in range(TASKS):
        name = f"lora{number}"
        path = write_adapter(root / name, draft, str(general), rank, 10 + number)
        shape = {"num_steps": steps, "topk": 1, "num_draft_tokens": steps + 1}
        adapters.append({"name": name, "kind": "lora", "base": "general", "path": str(path), "external": True} | shape)
    tree = entries["task1"] | {"name": "tree", "num_steps": 3, "topk": 2, "num_draft_tokens": 6}
    copies = {"name": "copies", "kind": "ngram", "num_steps": 4, "topk": 2, "num_draft_tokens": 8}
    pools = {
        "one": _pool(root / "pool-one", [entries["general"]]),
        "four": _pool(root / "pool-four", [entries[name] for name in folders if name != "general"]),
        "lora": _pool(root / "pool-lora", [entries["general"], *adapters]),
        "kinds": _pool(root / "pool-kinds", [entries["general"], entries["task0"], tree, adapters[0], copies]),
    }
    return Made(made_target, general, pools)


def _entry(name: str, path: Path, steps: int) -> dict[str, object]:
    shape = {"vocab": "shared", "num_steps": steps, "topk": 1, "num_draft_tokens": steps + 1}
    return {"name": name, "kind": "standalone", "path": str(path), "external": True} | shape


def _pool(root: Path, entries: list[dict[str, object]]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    manifest = {"format": "sglang_hetero_spec.pool", "schema_version": 1, "target": {}, "drafters": entries}
    (root / "pool.json").write_text(json.dumps(manifest | {"tasks": [], "fallback_drafter": entries[0]["name"]}))
    return root


def prompts(vocab_size: int, tasks: Sequence[int], length: int, seed: int = 0) -> list[list[int]]:
    """One for each entry of `tasks`, a walk through that block."""
    following = successors(vocab_size).tolist()
    generator = torch.Generator().manual_seed(seed)
    made = []
    for task in tasks:
        ids = block(vocab_size, task)
        walk = [ids[int(torch.randint(len(ids), (1,), generator=generator))]]
        while len(walk) < length:
            walk.append(following[walk[-1]])
        made.append(walk)
    return made
