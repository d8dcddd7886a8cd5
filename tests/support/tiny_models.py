"""Tiny random Llama checkpoints with one tokenizer, made in a second, for tests that need the real engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.support.manifest import write_manifest

__all__ = ["TinyShape", "byte_tokenizer", "write_manifest", "write_noisy_copy", "write_tiny_model"]

BOS, EOS = "<s>", "</s>"
VOCAB_SIZE = 256 + 2


@dataclass(frozen=True)
class TinyShape:
    """max_len: the context that the checkpoint was made for, in tokens."""

    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    max_len: int = 2048
    vocab_size: int = VOCAB_SIZE


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token: any text round-trips and tokens are easy to count."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: number for number, symbol in enumerate([BOS, EOS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS)
    fast.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return fast


def write_tiny_model(path: Path, *, seed: int, shape: TinyShape = TinyShape(), spread: float = 0.25) -> Path:
    """A random Llama in float32. spread: standard deviation of its weights; larger gives surer predictions."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden,
        intermediate_size=2 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.max_len,
        initializer_range=spread,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


def write_noisy_copy(source: Path, path: Path, *, seed: int, noise: float) -> Path:
    """The model at `source` with noise on its weights: a drafter that is right often, not always."""
    model = LlamaForCausalLM.from_pretrained(source)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * weight.std() * noise)
    model.save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path
