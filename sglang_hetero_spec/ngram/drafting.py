"""Proposals for requests of one drafter: each has its own text, all share the corpus of what was answered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from sglang_hetero_spec.ngram.confidence import Confidence
from sglang_hetero_spec.ngram.corpus import Corpus
from sglang_hetero_spec.ngram.matches import LONGEST, Tokens, match_within
from sglang_hetero_spec.ngram.proposal import Followed, Grown, followed, grow, learn

# Of a request's own text the last tokens are looked through at each step.
OWN_WINDOW = 1 << 17
# A running request's answer goes to the corpus in pieces of this many tokens.
PIECE = 128
MOST_OWN = 16
MOST_SHARED = 16


@dataclass
class Text:
    """A request's tokens. num_shared: those that the corpus has, or that are not for it (the prompt).

    asked: what matched at the last proposal. is_over: nobody will ask for it again.
    """

    num_shared: int = 0
    asked: Sequence[Followed] = ()
    length: int = 0
    is_over: bool = False
    _tokens: Tokens = field(default_factory=lambda: np.empty(0, np.int32))

    @property
    def tokens(self) -> Tokens:
        return self._tokens[: self.length]

    def append(self, new: Sequence[int]) -> None:
        end = self.length + len(new)
        if end > len(self._tokens):
            grown = np.empty(max(end + 256, end * 5 // 4), np.int32)
            grown[: self.length] = self.tokens
            self._tokens = grown
        self._tokens[self.length : end] = new
        self.length = end

    def piece(self) -> Tokens:
        """What the corpus lacks, behind the context that it follows."""
        return self.tokens[max(0, self.num_shared - LONGEST) :].copy()


class Drafting:
    """num_nodes: of a tree, without its root.

    What is proposed follows from the calls of `begin`, `take` and `propose` alone, not from when `release` is called:
    that is when Python lets a request go, which differs between the processes of a tensor-parallel server.
    """

    def __init__(self, corpus: Corpus, num_steps: int, topk: int, num_nodes: int) -> None:
        self.corpus = corpus
        self._num_steps, self._topk, self._num_nodes = num_steps, topk, num_nodes
        self._texts: dict[str, Text] = {}
        self._in_step: frozenset[str] = frozenset()
        self._of_own, self._of_shared = Confidence(), Confidence()

    def begin(self, rids: Collection[str]) -> None:
        """A step for these requests. What others were answered so far goes to the corpus."""
        leaving = {rid: self._texts[rid] for rid in self._in_step if rid not in rids}
        self._in_step = frozenset(rids)
        for rid, text in sorted(leaving.items()):
            self._share(text)
            if text.is_over:
                self._texts.pop(rid, None)

    def num_seen(self, rid: str) -> int:
        return self._texts[rid].length if rid in self._texts else 0

    def forget(self, rid: str, count: int) -> None:
        """Of the tokens that were taken the last `count`, which may not be the request's any more."""
        if rid in self._texts:
            text = self._texts[rid]
            text.length = max(0, text.length - count)
            text.asked = ()

    def take(self, rid: str, new: Sequence[int]) -> None:
        """New tokens of a request. The first ones are its prompt and one token of its answer."""
        text = self._texts.get(rid)
        if text is None:
            text = self._texts[rid] = Text(num_shared=len(new) - 1)
        learn(text.asked, new, self._num_steps)
        text.asked = ()
        text.append(new)
        if text.length - text.num_shared >= PIECE:
            self._share(text)

    def propose(self, rid: str) -> Grown:
        text = self._texts[rid]
        own = match_within(text.tokens[-OWN_WINDOW:], self._num_steps, MOST_OWN)
        shared = self.corpus.match(text.tokens[-LONGEST:], self._num_steps, MOST_SHARED)
        text.asked = followed((own, self._of_own), (shared, self._of_shared))
        return grow(text.asked, self._num_steps, self._topk, self._num_nodes)

    def release(self, rid: str) -> None:
        """May be called at any moment, also from within another call here."""
        if rid in self._in_step:
            self._texts[rid].is_over = True  # the next step shares it
        else:
            self._texts.pop(rid, None)

    def _share(self, text: Text) -> None:
        if text.length > text.num_shared:
            self.corpus.insert(text.piece())
            text.num_shared = text.length
