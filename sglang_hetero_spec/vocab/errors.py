"""What the vocabularies of a pool can be refused for."""

from __future__ import annotations

from sglang_hetero_spec.errors import HeteroError


class VocabError(HeteroError):
    """A tokenizer that this package cannot follow; `str(error)` is one sentence."""


class PsiTooLarge(HeteroError):
    """psi would take more draft forwards than allowed."""
