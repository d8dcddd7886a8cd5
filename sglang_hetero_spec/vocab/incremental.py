"""SLEM: what a drafter wrote, as tokens of the target (arXiv 2502.05202, algorithm 2).

Whatever comes out is verified, so nothing here can change the output; it decides only how much of it is accepted.
Nothing here raises: at worst nothing is proposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sglang_hetero_spec.vocab.boundary import Boundaries
from sglang_hetero_spec.vocab.token_bytes import TokenBytes

NO_NODE = -1
# More text than any chain needs; a limit on what a drafter can make us tokenise.
_MAX_DRAFTED_BYTES = 512


@dataclass(frozen=True)
class Drafted:
    """Text that a drafter wrote. end: the draft token that is no text and ended it, or None."""

    data: bytes
    end: int | None = None


@dataclass(frozen=True)
class Candidates:
    """A draft tree of one request, laid out as `drafters.tree.DraftTree`: n nodes, parents before children.

    tokens: n target ids, node 0 the last committed one. parents: n node numbers, -1 for node 0. Nodes 1, 2, ... are
    the likeliest chain; siblings are distinct.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]


def drafted_text(table: TokenBytes, draft_tokens: Sequence[int]) -> Drafted:
    """Up to the first token that is no text. table: the drafter's."""
    for i, token_id in enumerate(draft_tokens):
        if table.piece(token_id) is None:
            return Drafted(table.in_the_middle(draft_tokens[:i]), token_id)
    return Drafted(table.in_the_middle(draft_tokens))


def propose(
    target: Boundaries, context: Sequence[int], drafted: bytes, max_depth: int, max_nodes: int, end: int | None = None
) -> Candidates:
    """Target tokens for drafted bytes that follow the context.

    context: the committed target tokens, the root of the tree last; of a longer text, at least the last
    `boundary.CONTEXT_TOKENS`. end: the target token that ended the draft, proposed behind all of its text.

    The bytes are tokenised together with the end of the context. Where that would put a token across the boundary, the
    context was not written as its tokenizer would: then what is left of that token, and the drafted bytes by
    themselves, are the first tokens of two chains. A character that is not all there is not proposed.
    """
    if not context:
        return Candidates((), ())
    is_cut = len(drafted) > _MAX_DRAFTED_BYTES
    found = target.continue_text(context, drafted[:_MAX_DRAFTED_BYTES])
    data = drafted[: min(len(drafted), _MAX_DRAFTED_BYTES) - found.held]
    chains = [found.after]
    if found.gap:
        rest = target.side.spell(data[: found.gap])
        is_said = len(target.side.table.in_the_middle(rest)) == found.gap
        chains = [[*rest, *found.after] if is_said else rest]
    if found.gap or not found.after or not found.tail.is_safe:
        chains.append(target.side.spell(data))
    if end is not None and not found.held and not is_cut:
        chains = [[*chain, end] for chain in chains if target.side.table.in_the_middle(chain) == data]
    return _tree(context[-1], [chain[:max_depth] for chain in chains], max_nodes)


def _tree(root: int, chains: list[list[int]], max_nodes: int) -> Candidates:
    """The first chain whole, then what the others add. max_nodes: with the root."""
    tokens, parents = [root], [NO_NODE]
    children: dict[tuple[int, int], int] = {}
    for chain in chains:
        node = 0
        for token in chain:
            if (node, token) not in children:
                if len(tokens) >= max_nodes:
                    break
                children[node, token] = len(tokens)
                tokens.append(token)
                parents.append(node)
            node = children[node, token]
    return Candidates(tuple(tokens), tuple(parents))
