"""What an aligned drafter says of the mode that it was made for."""

from __future__ import annotations

import json
from pathlib import Path

from sglang_hetero_spec.pool.kinds import AUTO, KNOWN_VOCABS
from sglang_hetero_spec.pool.vocabulary import has_tokenizer

_ALIGNED = "align.json"


def vocab_of(folder: Path) -> str:
    """`vocab` of a checkpoint's entry in a pool.json: what it was aligned for, else `auto`.

    A checkpoint without a tokenizer.json counts as `shared`, as it does for `align`.
    """
    try:
        said = json.loads((folder / _ALIGNED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        said = None
    made_for = said.get("vocab") if isinstance(said, dict) else None
    if made_for in KNOWN_VOCABS:
        return str(made_for)
    return AUTO if has_tokenizer(folder) else "shared"
