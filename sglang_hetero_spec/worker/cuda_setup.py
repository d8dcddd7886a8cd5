"""What the worker does on CUDA before SGLang makes attention backends."""

from __future__ import annotations

import logging

import torch

from sglang_hetero_spec.cuda.support import merges_in_triton

logger = logging.getLogger(__name__)


def prepare_cuda() -> None:
    """Two-part verification is offered to SGLang; a switch that cannot be followed is refused now. HeteroError."""
    from sglang_hetero_spec.cuda.attn_backend import register_tree_backend

    register_tree_backend()
    if not merges_in_triton(torch.device("cuda")):
        logger.warning("HETERO merges trees in PyTorch: Triton is not used here.")
