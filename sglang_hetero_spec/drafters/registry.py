"""The kinds of drafters. A new kind is one file and one line here (and its name in pool/kinds.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sglang_hetero_spec.drafters.base import Drafter, DraftModel
from sglang_hetero_spec.drafters.none import NoneDrafter
from sglang_hetero_spec.drafters.standalone import StandaloneDrafter
from sglang_hetero_spec.pool import DrafterSpec


class DrafterHost(Protocol):
    """What the worker offers to a drafter that is being built."""

    def draft_model(self, spec: DrafterSpec) -> DraftModel:
        """The weights under spec.path, loaded by SGLang, with a KV pool of their own."""

    def native_context(self, spec: DrafterSpec) -> int | None:
        """Tokens of context that the model of `spec` was made for."""


def _standalone(spec: DrafterSpec, host: DrafterHost) -> Drafter:
    return StandaloneDrafter(spec, host.draft_model(spec), host.native_context(spec))


def _none(spec: DrafterSpec, host: DrafterHost) -> Drafter:
    return NoneDrafter(spec)


KINDS: dict[str, Callable[[DrafterSpec, DrafterHost], Drafter]] = {
    "standalone": _standalone,
    "none": _none,
}


def build_drafter(spec: DrafterSpec, host: DrafterHost) -> Drafter:
    return KINDS[spec.kind](spec, host)
