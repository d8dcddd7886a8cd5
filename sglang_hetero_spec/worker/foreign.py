"""Drafters whose vocabulary is not the target's, when the worker starts."""

from __future__ import annotations

import logging
from pathlib import Path

from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.pool import DrafterSpec, Pool
from sglang_hetero_spec.vocab.errors import VocabError
from sglang_hetero_spec.vocab.pairing import Pairing, pair
from sglang_hetero_spec.worker.loading import draft_vocab_size

logger = logging.getLogger(__name__)


def log_overlaps(pool: Pool) -> None:
    """What each foreign drafter shares with the target; a warning where that is too little to pay."""
    for spec in pool.drafters:
        if spec.overlap is None:
            continue
        logger.info("HETERO: %s", spec.overlap.line(spec.name, spec.vocab))
        warning = spec.overlap.warning(spec.name, spec.vocab)
        if warning is not None:
            logger.warning("HETERO: %s", warning)


def pair_with_target(spec: DrafterSpec, target: Path | None, target_vocab_size: int) -> Pairing:
    """Both tokenizers; HeteroError where they cannot be read."""
    if target is None or spec.path is None:
        raise HeteroError(
            f"Drafter {spec.name} has `vocab` {spec.vocab}, which needs the target's tokenizer in a local folder; give "
            "one with --tokenizer-path."
        )
    try:
        return pair(target, spec.path, target_vocab_size=target_vocab_size, draft_vocab_size=draft_vocab_size(spec))
    except VocabError as error:
        raise HeteroError(str(error)) from None
