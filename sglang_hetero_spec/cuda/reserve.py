"""GPU memory that HETERO takes beside weights and KV caches, which SGLang counts by itself. Whole numbers, no GPU.

SGLang leaves a part of the memory free for what is made after the KV caches (mem_fraction_static); this is what a pool
of drafters adds to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIB = 1 << 20
# What a FlashInfer wrapper allocates when it is made: 8 MiB for its plan, and 32768 int32 lengths (0.7.2, prefill.py).
WRAPPER_BYTES = 8 * MIB + 4 * 32768
# SGLang's FlashInfer backend makes four for each kind of layer: ragged, paged, verify and decode.
WRAPPERS_PER_BACKEND = 4
# What a captured draft forward keeps beside its attention plan: nodes, and its share of intermediate values. An
# estimate until it is measured; captures end where the sum of all is spent (cuda.graphs.capture).
GRAPH_BYTES = 24 * MIB
# Logits in float32, their probabilities, one more of the size while they are masked, and int64 indices of a sort.
LOGIT_COPIES = 5
_FLOAT_BYTES, _INDEX_BYTES, _TOKEN_BYTES = 4, 4, 8


@dataclass(frozen=True)
class DraftShape:
    """A draft model: its name in the pool, and its vocabulary with padding. tree_width: nodes of a request that one
    forward reads, 1 for chains. num_backends: attention backends, one for each width of committed tokens (cuda.graphs).
    """

    name: str
    vocab_size: int
    tree_width: int = 1
    num_backends: int = 1


@dataclass(frozen=True)
class ServerShape:
    """vocab_size: of the target. width: nodes of the widest tree. graph_sizes: batch sizes of the target's graphs.
    layer_kinds: 2 where some layers have a sliding window. draft_graphs: captured for each draft model, at most.
    in_parts: tree verification takes two attention calls. stream_bytes: of each draft model on a stream of its own, 0
    where drafters take turns."""

    vocab_size: int
    context_len: int
    max_requests: int
    width: int
    page_size: int
    graph_sizes: tuple[int, ...]
    layer_kinds: int = 1
    draft_graphs: int = 0
    in_parts: bool = False
    stream_bytes: int = 0


@dataclass(frozen=True)
class ReserveRow:
    what: str
    num_bytes: int


def reserve_rows(server: ServerShape, drafters: Sequence[DraftShape]) -> list[ReserveRow]:
    """Where drafters propose one after another, the largest logits of one count, not all of them."""
    num_backends = sum(drafter.num_backends for drafter in drafters)
    wrappers = WRAPPERS_PER_BACKEND * server.layer_kinds * num_backends
    at_once = sum if server.stream_bytes else max
    drafting = at_once([0, *(drafter.vocab_size for drafter in drafters)]) * server.max_requests
    verified = server.max_requests * server.width * server.vocab_size
    rows = [
        ReserveRow("attention plans of drafters", wrappers * WRAPPER_BYTES),
        ReserveRow("streams of drafters", server.stream_bytes * num_backends),
        ReserveRow("graphs of drafters", server.draft_graphs * len(drafters) * bytes_of_a_graph(server.layer_kinds)),
        ReserveRow("page indices and masks of drafters' graphs", _graph_indices(server, drafters)),
        ReserveRow("logits of drafters' graphs", _graph_logits(server, drafters)),
        ReserveRow("logits of drafting", drafting * _FLOAT_BYTES * LOGIT_COPIES),
        ReserveRow("logits of verification", verified * _FLOAT_BYTES * LOGIT_COPIES),
        ReserveRow("laws of drawn drafts", verified * _FLOAT_BYTES),
        ReserveRow("committed tokens", server.max_requests * server.context_len * _TOKEN_BYTES),
        ReserveRow("verification in two parts", _parts_bytes(server) if server.in_parts else 0),
    ]
    return [row for row in rows if row.num_bytes]


def reserve_bytes(server: ServerShape, drafters: Sequence[DraftShape]) -> int:
    return sum(row.num_bytes for row in reserve_rows(server, drafters))


def bytes_of_a_graph(layer_kinds: int = 1) -> int:
    """With its attention plan."""
    return layer_kinds * WRAPPER_BYTES + GRAPH_BYTES


def _graph_indices(server: ServerShape, drafters: Sequence[DraftShape]) -> int:
    """For whole contexts of all requests and of one more, for every 8 nodes of a tree (cuda.graphs.draft_graphs): int32
    and a byte."""
    if not server.draft_graphs:
        return 0
    times = sum(-(-drafter.tree_width // 8) + drafter.num_backends - 1 for drafter in drafters)
    return times * server.layer_kinds * (server.max_requests + 1) * server.context_len * (_INDEX_BYTES + 1)


def _graph_logits(server: ServerShape, drafters: Sequence[DraftShape]) -> int:
    """Each model's graphs leave them in a place of their own."""
    if not server.draft_graphs:
        return 0
    return sum(drafter.vocab_size * drafter.tree_width for drafter in drafters) * server.max_requests * _FLOAT_BYTES


def _parts_bytes(server: ServerShape) -> int:
    """A second wrapper for each captured batch size (SGLang counts one), two without a graph, and their indices."""
    wrappers = (len(server.graph_sizes) + 2) * server.layer_kinds * WRAPPER_BYTES
    largest = max(server.graph_sizes, default=0)
    pages = largest * (-(-server.context_len // server.page_size) + 1) * server.layer_kinds
    masks = server.max_requests * server.width**2
    return wrappers + pages * _INDEX_BYTES + masks
