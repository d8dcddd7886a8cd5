"""What a drafter is: take requests, propose draft trees for them, let them go.

The worker knows drafters only through this interface, and a drafter knows nothing of other drafters, of
SGLang's batches or of verification. A new kind is one file that subclasses `Drafter` and one line in the registry; what
its entry in a manifest looks like is one file and one line in pool/entries/.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

import torch

from sglang_hetero_spec.drafters.tree import DraftTree
from sglang_hetero_spec.pool import DrafterSpec


class Sampler(Protocol):
    """Draws drafts as the b requests' sampling parameters ask for it; a greedy request's draft is the likeliest.

    temperatures: [b, 1] float32.
    """

    temperatures: torch.Tensor

    def draw(self, logits: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """logits [b, m] for the draft number `step`, from 0: columns [b] int64, the law [b, m] they were drawn from."""

    def draw_from(self, probs: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The same from a law that may sum to less than 1, [b, m]: column m stands for what it lacks."""

    def select(self, numbers: list[int]) -> Sampler:
        """For these of the b requests."""

    def likeliest(self, numbers: list[int]) -> Sampler:
        """The same, but for these requests as if they were greedy."""


@dataclass(frozen=True)
class DraftBatch:
    """The b requests of one verify step that one drafter serves.

    rows: [b] int64 on the device, the request's row in SGLang's req_to_token table.
    seq_lens: [b] int64 on the device, committed tokens whose target KV exists; the root is token `seq_lens`.
    root_tokens: [b] int64 on the device, the last committed token (SGLang's bonus token).
    seq_lens_cpu: the same on the host, where the attention backend plans with it; None otherwise.
    newcomers: numbers within 0..b-1 of requests whose history this drafter has not read.
    newcomer_lens: seq_lens of the newcomers, on the host.
    rids: the requests' names, as `admit` was given them.
    sampler: None where all requests are greedy.
    drafters: whose requests they are (numbers in the pool), in ascending order; None where all are the one's own.
    lag: of the tokens committed last, how many another drafter may have proposed (requests that have two drafters).
    wants_scores: whether the trees are to be merged with another drafter's, by their scores.
    """

    rows: torch.Tensor
    seq_lens: torch.Tensor
    root_tokens: torch.Tensor
    seq_lens_cpu: torch.Tensor | None = None
    newcomers: tuple[int, ...] = ()
    newcomer_lens: tuple[int, ...] = ()
    rids: tuple[str, ...] = ()
    sampler: Sampler | None = None
    drafters: tuple[int, ...] | None = None
    lag: int = 0
    wants_scores: bool = False


class DraftModel(Protocol):
    """Forwards of a draft language model over the requests' shared KV slots. Slot i holds token i.

    Logits are float or bfloat16, cut to the ids that the target has, and hold until the model's next forward. Tokens
    are read from the committed history of each request, so a drafter never passes what is already known.
    """

    @property
    def together(self) -> Hashable:
        """Models of equal value read together: any of them reads for all, the requests of each next to each other."""

    def catch_up(self, batch: DraftBatch, window: int) -> None:
        """Write the KV of everything that the newcomers lack before their last `window` tokens."""

    def read_window(self, batch: DraftBatch, window: int) -> torch.Tensor:
        """Read the last `window` committed tokens, the root being the last; logits after the root, [b, V]."""

    def read_next(self, batch: DraftBatch, tokens: torch.Tensor, offset: int) -> torch.Tensor:
        """Read one more token, `offset` places behind the root, tokens [b]; logits after it, [b, V]."""

    def read_tree(self, batch: DraftBatch, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        """Read nodes behind the root, tokens and parents [b, n] without the root (parent -1 is the root);
        logits after each node, [b, n, V]."""


class Drafter(ABC):
    """One entry of the pool at work."""

    def __init__(self, spec: DrafterSpec) -> None:
        self.spec = spec

    @property
    def together(self) -> Hashable:
        """Drafters of equal value propose in one call, which any of them takes for all."""
        return id(self)

    @property
    def lane(self) -> Hashable | None:
        """Drafters of equal value use one model or one memory, and propose one after another; None: nothing on a GPU
        is theirs."""
        return None

    @property
    def waits(self) -> bool:
        """Whether a proposal makes the host wait, each time, for what the device has computed."""
        return False

    @property
    def max_seq_len(self) -> int | None:
        """Tokens of context that the drafter can read, None for any number."""
        return None

    def admit(self, rid: str) -> None:
        """Take a request that this drafter serves from now on. Called once for a request, before its first proposal."""

    @abstractmethod
    def propose(self, batch: DraftBatch) -> DraftTree:
        """Draft trees of exactly `spec.num_draft_tokens` nodes for each request, siblings distinct."""

    def release(self, rid: str) -> None:
        """Let a request go. Called once for each that was admitted."""
