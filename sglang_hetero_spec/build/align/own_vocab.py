"""A drafter's own vocabulary in an alignment: how it reads the target's answers, and what of it is compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sglang_hetero_spec.build.align.answers import Row
from sglang_hetero_spec.build.align.retokenize import as_text, token_by_token
from sglang_hetero_spec.pool.target_folder import local_folder
from sglang_hetero_spec.pool.vocabulary import has_tokenizer
from sglang_hetero_spec.vocab.choose import choose
from sglang_hetero_spec.vocab.overlap import describe
from sglang_hetero_spec.vocab.pairing import Pairing, pair
from sglang_hetero_spec.vocab.roles import Role
from sglang_hetero_spec.vocab.token_weights import TokenWeights


@dataclass(frozen=True)
class OwnVocab:
    """mode: `tli`, `slem` or `slrs`, as a manifest has it."""

    pairing: Pairing
    mode: str

    @classmethod
    def find(
        cls, target: Path, drafter: Path, mode: str, rows: Iterable[Row], sizes: tuple[int, int | None], cache: Path
    ) -> OwnVocab:
        """VocabError for tokenizers that cannot be paired. mode `auto` is chosen by what the rows have in common.

        target, drafter: folders. sizes: of the models' vocabularies, None where there is no model yet.
        """
        pairing = pair(target, drafter, target_vocab_size=sizes[0], draft_vocab_size=sizes[1], cache=cache)
        if mode == "auto":
            counts = np.zeros(sizes[0])
            for row in rows:
                np.add.at(counts, list(row.answer), 1.0)
            mode = choose(describe(pairing, TokenWeights(counts, "the target's answers"))).mode
        return cls(pairing, mode)

    @property
    def by_target_tokens(self) -> bool:
        """Whether the drafter proposes the target's tokens, so that both can be compared one by one."""
        return self.mode == "tli"

    def rows(self, rows: Iterable[Row]) -> tuple[Row, ...]:
        return token_by_token(rows, self.pairing) if self.by_target_tokens else as_text(rows, self.pairing)

    @cached_property
    def draft_ids(self) -> Tensor | None:
        """int64 [n]: what the drafter may propose; None for all it has."""
        return torch.from_numpy(self.pairing.shared.draft_ids.astype("int64")) if self.by_target_tokens else None

    @cached_property
    def target_ids(self) -> Tensor | None:
        """int64 [n]: the same tokens in the target's ids."""
        if self.draft_ids is None:
            return None
        return torch.from_numpy(self.pairing.shared.draft_to_target.astype("int64"))[self.draft_ids]

    @property
    def digest(self) -> str:
        """Of `target_ids`."""
        return "" if self.target_ids is None else sha256(self.target_ids.numpy().tobytes()).hexdigest()

    @property
    def config(self) -> dict[str, Any]:
        """What a fresh model's config says of its tokenizer."""
        table = self.pairing.draft.table
        ends = list(table.eos)
        bos = self.pairing.draft.begin[:1] or (table.first(Role.BOS),)
        pad = table.first(Role.PAD)
        return {
            "vocab_size": len(table),
            "bos_token_id": bos[0],
            "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
            "pad_token_id": pad if pad is not None else (ends[0] if ends else None),
        }

    def overlap(self) -> dict[str, float]:
        shared = self.pairing.shared
        return {"target_percent": shared.target_percent, "draft_percent": shared.draft_percent}


def tokenizer_folder(name_or_path: str, save: Path) -> Path | None:
    """A folder with a checkpoint's tokenizer.json: its own, or where a name on the hub is kept; None without one."""
    if Path(name_or_path).is_dir():
        return Path(name_or_path) if has_tokenizer(Path(name_or_path)) else None
    from transformers import AutoTokenizer

    try:
        AutoTokenizer.from_pretrained(name_or_path).save_pretrained(save)
    except (OSError, ValueError):
        return None
    # What the library downloaded is the checkpoint's own; what it saved may be converted.
    return local_folder(name_or_path) or save
