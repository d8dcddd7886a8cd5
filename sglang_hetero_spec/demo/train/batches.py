"""Token sequences, and batches of them that waste little on padding."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from sglang_hetero_spec.demo.data import Example
from sglang_hetero_spec.demo.train.tokenizer import EOS


@dataclass(frozen=True)
class Row:
    """A prompt (with its bos) and an answer (with its eos), as ids."""

    task: str
    prompt: list[int]
    answer: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


def encode(tokenizer: Tokenizer, items: Sequence[Example]) -> list[Row]:
    """Prompt and answer are tokenized apart, as they are when a prompt is served."""
    eos = tokenizer.token_to_id(EOS)
    prompts = tokenizer.encode_batch([item.prompt for item in items])
    answers = tokenizer.encode_batch([item.answer for item in items], add_special_tokens=False)
    return [
        Row(item.task, prompt.ids, [*answer.ids, eos])
        for item, prompt, answer in zip(items, prompts, answers, strict=True)
    ]


def plan(lengths: Sequence[int], batch_tokens: int, budget: int, seed: int) -> list[list[int]]:
    """Batches of indices, epoch after epoch, until `budget` tokens (unpadded) are in them."""
    rng, batches, used = random.Random(seed), [], 0
    while used < budget:
        order = list(range(len(lengths)))
        rng.shuffle(order)
        epoch = []
        for start in range(0, len(order), 1024):
            epoch += _chunks(sorted(order[start : start + 1024], key=lengths.__getitem__), lengths, batch_tokens)
        rng.shuffle(epoch)
        for batch in epoch:
            batches.append(batch)
            used += sum(lengths[i] for i in batch)
            if used >= budget:
                break
    return batches


def _chunks(ordered: list[int], lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    chunks: list[list[int]] = [[]]
    for index in ordered:
        if lengths[index] * (len(chunks[-1]) + 1) > batch_tokens and chunks[-1]:
            chunks.append([])
        chunks[-1].append(index)
    return chunks


def pad(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """ids [B, T] right-padded with 0, and a bool mask [B, T] of the positions that predict an answer's token."""
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    predicts = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row.prompt + row.answer)
        predicts[i, len(row.prompt) - 1 : len(row) - 1] = True
    return ids, predicts
