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


def check_foreign(pool: Pool, target: Path | None) -> None:
    """Says what each foreign drafter shares with the target, and warns where that is too little to pay.

    HeteroError where there is no target to compare with.
    """
    for spec in pool.drafters:
        if spec.vocab != "shared" and spec.path is not None and target is None:
            raise HeteroError(
                f"Drafter {spec.name} has `vocab` {spec.vocab}, which needs the target's tokenizer in a local folder;"
                " give one with --tokenizer-path."
            )
        if spec.overlap is None:
            continue
        logger.info("HETERO: %s", spec.overlap.line(spec.name, spec.vocab))
        warning = spec.overlap.warning(spec.name, spec.vocab)
        if warning is not None:
            logger.warning("HETERO: %s", warning)


def pair_with_target(spec: DrafterSpec, target: Path | None, target_vocab_size: int) -> Pairing:
    """Both tokenizers; HeteroError where they cannot be read."""
    assert target is not None and spec.path is not None, "check_foreign comes first"
    try:
        return pair(target, spec.path, target_vocab_size=target_vocab_size, draft_vocab_size=draft_vocab_size(spec))
    except VocabError as error:
        raise HeteroError(str(error)) from None
