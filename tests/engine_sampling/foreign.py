"""A target whose tokens are bytes and some of two or three, and a drafter with a vocabulary of its own.

The drafter is the target with noise on its weights, so it is often right: its rows of the tokens that both have lie at
other ids. It lacks some of the target's tokens, has some that the target lacks, and rows that are no token at all.
"""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tests.support.tiny_models import BOS, EOS, VOCAB_SIZE

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
# So many bytes are no token by themselves: longer tokens have their ids.
NUM_LONGER = 24
NUM_LACKING, NUM_ADDED, NUM_PADDING = 20, 12, 14


def target_tokens() -> list[str]:
    """By id."""
    kept = BYTES[: len(BYTES) - NUM_LONGER]
    # Not of the prompt's letters: the drafter reads the prompt as the target does.
    pairs = [one + other for one, other in pairwise(kept[60 : 60 + NUM_LONGER])]
    return [BOS, EOS, *kept, *pairs, pairs[0] + kept[70]]


def draft_tokens() -> list[str]:
    rng = random.Random(7)
    theirs = target_tokens()
    # Not the bytes that longer tokens are made of: the drafter can read all of them.
    lacking = set(rng.sample(theirs[100:], NUM_LACKING))
    kept = [token for token in theirs if token not in lacking]
    added = [one + other for one, other in zip(kept[64 : 64 + NUM_ADDED], kept[80:], strict=False)]
    tokens = [*kept, *(token for token in added if token not in theirs)]
    rng.shuffle(tokens)
    return tokens


def tokenizer(tokens: list[str]) -> PreTrainedTokenizerFast:
    vocab = {token: i for i, token in enumerate(tokens)}
    text = [token for token in tokens if token not in (BOS, EOS)]
    merges = [(t[:i], t[i:]) for t in sorted(text, key=len) for i in range(1, len(t))]
    made = Tokenizer(models.BPE(vocab=vocab, merges=[pair for pair in merges if vocab.keys() >= {*pair}]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=BOS, eos_token=EOS)


def write_target_tokenizer(folder: Path) -> None:
    assert len(target_tokens()) == VOCAB_SIZE
    tokenizer(target_tokens()).save_pretrained(folder)


def write_foreign_drafter(near: Path, folder: Path) -> Path:
    """near: a checkpoint with the target's vocabulary."""
    model = LlamaForCausalLM.from_pretrained(near)
    tokens, theirs = draft_tokens(), {token: i for i, token in enumerate(target_tokens())}
    size = len(tokens) + NUM_PADDING
    generator = torch.Generator().manual_seed(5)
    rows = [theirs.get(token) for token in tokens] + [None] * NUM_PADDING
    for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
        old = embedding.weight.data
        new = torch.randn(size, old.shape[1], generator=generator) * old.std()
        # Tokens of its own are not so likely, and what is no token is likelier than all.
        new[: len(tokens)] *= 0.5
        new[len(tokens) :] *= 2
        for i, row in enumerate(rows):
            if row is not None:
                new[i] = old[row]
        embedding.weight.data = new
    model.config.vocab_size = size
    model.config.bos_token_id, model.config.eos_token_id = tokens.index(BOS), tokens.index(EOS)
    model.generation_config.bos_token_id, model.generation_config.eos_token_id = tokens.index(BOS), tokens.index(EOS)
    model.save_pretrained(folder)
    tokenizer(tokens).save_pretrained(folder)
    return folder
