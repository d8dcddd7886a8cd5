"""Tables and mid-text tokenisers of the made tokenizers, each made once."""

from __future__ import annotations

from functools import cache

from sglang_hetero_spec.vocab.mid_text import MidText
from sglang_hetero_spec.vocab.token_bytes import TokenBytes, read_token_bytes
from tests.vocab.made_tokenizers import folder_of


@cache
def table_of(name: str) -> TokenBytes:
    return read_token_bytes(folder_of(name))


@cache
def side_of(name: str) -> MidText:
    return MidText(table_of(name))
