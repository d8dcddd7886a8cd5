"""The kinds of drafters. A new kind is one file and one line here (and in pool/entries/, its name in pool/kinds.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from sglang_hetero_spec.drafters.base import Drafter, DraftModel
from sglang_hetero_spec.drafters.growing import chain_room
from sglang_hetero_spec.drafters.lora import LoraDrafter
from sglang_hetero_spec.drafters.ngram import NgramDrafter
from sglang_hetero_spec.drafters.none import NoneDrafter
from sglang_hetero_spec.drafters.sequences import Committed, Sequences
from sglang_hetero_spec.drafters.slem import SlemDrafter
from sglang_hetero_spec.drafters.slrs import SlrsDrafter, psi_plan, slrs_room
from sglang_hetero_spec.drafters.sorted import SortedDrafter, SortedModel
from sglang_hetero_spec.drafters.standalone import StandaloneDrafter
from sglang_hetero_spec.drafters.text_tree import TextTree
from sglang_hetero_spec.drafters.tli import TliDrafter
from sglang_hetero_spec.pool import DrafterSpec
from sglang_hetero_spec.pool.exits import taken
from sglang_hetero_spec.vocab.pairing import Pairing


class DrafterHost(Protocol):
    """What the worker offers to a drafter that is being built."""

    def draft_model(self, spec: DrafterSpec) -> DraftModel:
        """The weights under spec.path, loaded by SGLang, with a KV pool of their own."""

    @property
    def leaves_layers(self) -> bool:
        """Whether there are models here that may leave behind some of their layers; elsewhere `draft_model` goes
        through all layers up to the last exit of a sorted drafter."""

    def sorted_model(self, spec: DrafterSpec) -> SortedModel:
        """The same as draft_model, for a model that may leave behind some of its layers."""

    def adapted_model(self, spec: DrafterSpec) -> DraftModel:
        """The draft model of the drafter that `spec` adapts, which serves the adapter from now on."""

    def number(self, spec: DrafterSpec) -> int:
        """The drafter's number in the pool."""

    def native_context(self, spec: DrafterSpec) -> int | None:
        """Tokens of context that the model of `spec` was made for."""

    def pairing(self, spec: DrafterSpec) -> Pairing:
        """The drafter's tokenizer and the target's."""

    def sequences(
        self, spec: DrafterSpec, pairing: Pairing, room: int, logit_ids: torch.Tensor | None = None
    ) -> Sequences:
        """The weights under spec.path with sequences of their own. room: draft tokens behind the last committed one
        that a proposal may write. logit_ids: [m] int64 draft ids, the only ones that logits are wanted of; None for
        all that the tokenizer has."""

    def committed_tokens(self) -> Committed:
        """What requests have committed, for a drafter that works on the host."""

    @property
    def target_vocab_size(self) -> int:
        """Token ids that the target can read."""

    @property
    def device(self) -> str:
        """Where tensors of drafters live."""


def _standalone(spec: DrafterSpec, host: DrafterHost) -> Drafter:
    return VOCABS[spec.vocab](spec, host)


def _shared(spec: DrafterSpec, host: DrafterHost) -> Drafter:
    return StandaloneDrafter(spec, host.draft_model(spec), host.native_context(spec))


def _tli(spec: DrafterSpec, host: DrafterHost) -> Drafter:
    pairing = host.pairing(spec)
    logit_ids = torch.from_numpy(pairing.shared.draft_ids.astype("int64"))
    return TliDrafter(spec, host.sequences(spec, pairing, chain_room(spec), logit_ids), pairing, host.device)


def _slem(spec: DrafterSpec, host: DrafterHost) -> Drafter:
    pairing = host.pairing(spec)
    return SlemDrafter(spec, host.sequences(spec, pairing, chain_room(spec)), pairing)


def _slrs(spec: DrafterSpec, host: DrafterHost) -> Drafter:
    pairing = host.pairing(spec)
    tree = TextTree(psi_plan(pairing), len(pairing.target.table), host.device)
    return SlrsDrafter(spec, host.sequences(spec, pairing, slrs_room(spec, pairing, tree)), pairing, tree)


def _ngram(spec: DrafterSpec, host: DrafterHost) -> Drafter:
    return NgramDrafter(spec, host.committed_tokens(), host.target_vocab_size)


def _sorted(spec: DrafterSpec, host: DrafterHost) -> Drafter:
    spec = taken(spec)
    if not host.leaves_layers:
        return StandaloneDrafter(spec, host.draft_model(spec), host.native_context(spec))
    return SortedDrafter(spec, host.sorted_model(spec), host.native_context(spec))


def _lora(spec: DrafterSpec, host: DrafterHost) -> Drafter:
    return LoraDrafter(spec, host.adapted_model(spec), host.native_context(spec), number=host.number(spec))


def _none(spec: DrafterSpec, host: DrafterHost) -> Drafter:
    return NoneDrafter(spec)


KINDS: dict[str, Callable[[DrafterSpec, DrafterHost], Drafter]] = {
    "standalone": _standalone,
    "ngram": _ngram,
    "sorted": _sorted,
    "lora": _lora,
    "none": _none,
}
VOCABS: dict[str, Callable[[DrafterSpec, DrafterHost], Drafter]] = {
    "shared": _shared,
    "tli": _tli,
    "slem": _slem,
    "slrs": _slrs,
}


def build_drafter(spec: DrafterSpec, host: DrafterHost) -> Drafter:
    return KINDS[spec.kind](spec, host)


def build_drafters(specs: Sequence[DrafterSpec], host: DrafterHost) -> list[Drafter]:
    """In this order; the bases of adapters are built before these."""
    bases_first = sorted(specs, key=lambda spec: spec.base is not None)
    made = {spec.name: build_drafter(spec, host) for spec in bases_first}
    return [made[spec.name] for spec in specs]
