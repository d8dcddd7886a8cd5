"""What the worker does on CUDA before SGLang makes attention backends."""

from __future__ import annotations

import torch
from sglang.srt.runtime_context import attention_backends, get_parallel, get_spec

from sglang_hetero_spec.cuda.streams import Parallel, Serial, draft_streams, why_not_parallel
from sglang_hetero_spec.cuda.support import merges_in_triton


def prepare_cuda(in_parallel: bool) -> None:
    """Two-part verification is offered to SGLang; a switch that cannot be followed is refused now. HeteroError.

    in_parallel: drafters have streams of their own.
    """
    from sglang_hetero_spec.cuda.attn_backend import register_tree_backend

    register_tree_backend(own_workspaces=in_parallel)
    merges_in_triton(torch.device("cuda"))


def choose_streams(device: str) -> Serial | Parallel:
    """How the drafters of this server take turns. HeteroError if it was asked to be in a way that it cannot be."""
    of_drafters = get_spec().speculative_draft_attention_backend
    backends = [of_drafters] if of_drafters else attention_backends()
    return draft_streams(device, why_not_parallel(get_parallel().tp_size, backends))
