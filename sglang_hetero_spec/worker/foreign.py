"""Drafters whose vocabulary is not the target's, when the worker starts."""

from __future__ import annotations

import logging
from pathlib import Path

from sglang_hetero_spec.drafters.tokenizer_fit import TEXT, tokenizer_fit
from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.pool import DrafterSpec, Pool
from sglang_hetero_spec.vocab.errors import VocabError
from sglang_hetero_spec.vocab.mid_text import MidText
from sglang_hetero_spec.vocab.pairing import Pairing, pair
from sglang_hetero_spec.worker.loading import draft_vocab_size
from sglang_hetero_spec.worker.own_sequences import OwnSequences

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


def check_fit(spec: DrafterSpec, sequences: OwnSequences, draft: MidText, device: str) -> None:
    """Warns of a drafter whose model does not know its tokenizer. It is no refusal: a model may know none of the text,
    and output is exact anyway."""
    ids = [*draft.begin, *draft.encode(TEXT)]
    columns = sequences.model.head.ids
    fit = tokenizer_fit(sequences, ids, None if columns is None else columns.tolist(), device)
    if fit is not None and fit.is_chance:
        logger.warning(
            "HETERO: drafter %s predicts text in the tokens of %s no better than chance (%.1f nats, +-%.1f), so this is"
            " not the tokenizer that it was trained with, or it is not trained; put the right tokenizer.json there, and"
            " its hash as `tokenizer_sha256` into pool.json, which refuses any other.",
            *(spec.name, spec.path, fit.gain, fit.error),
        )


def pair_with_target(spec: DrafterSpec, target: Path | None, target_vocab_size: int) -> Pairing:
    """Both tokenizers; HeteroError where they cannot be read."""
    assert target is not None and spec.path is not None, "check_foreign comes first"
    try:
        return pair(target, spec.path, target_vocab_size=target_vocab_size, draft_vocab_size=draft_vocab_size(spec))
    except VocabError as error:
        raise HeteroError(str(error)) from None
