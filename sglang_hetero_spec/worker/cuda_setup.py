"""What the worker does on CUDA before SGLang makes attention backends."""

from __future__ import annotations

import torch

from sglang_hetero_spec.cuda.support import merges_in_triton


def prepare_cuda() -> None:
    """Two-part verification is offered to SGLang; a switch that cannot be followed is refused now. HeteroError."""
    from sglang_hetero_spec.cuda.attn_backend import register_tree_backend

    register_tree_backend()
    merges_in_triton(torch.device("cuda"))
