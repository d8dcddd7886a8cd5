"""`sgl_kernel.speculative`, as far as SGLang's CPU path imports it."""

from sglang_hetero_spec.cpu.tree import reconstruct_indices_from_tree_mask

__all__ = ["reconstruct_indices_from_tree_mask"]
