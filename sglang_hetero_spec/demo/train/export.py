"""Writes and reads models in the format of transformers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from sglang_hetero_spec.demo.train.model import Shape, TinyLlama
from sglang_hetero_spec.demo.train.tokenizer import BOS, EOS, PAD, save_tokenizer
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.files import write_json


def save_model(model: TinyLlama, tokenizer: Tokenizer, directory: Path) -> None:
    """A directory that transformers and SGLang load: config, bf16 weights, tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: p.detach().bfloat16().contiguous() for name, p in model.named_parameters()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    ids = (tokenizer.token_to_id(token) for token in (BOS, EOS, PAD))
    write_json(directory / "config.json", model.shape.config(*ids), HeteroError)
    bos, eos, pad = (tokenizer.token_to_id(token) for token in (BOS, EOS, PAD))
    special = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
    write_json(directory / "generation_config.json", special, HeteroError)
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
