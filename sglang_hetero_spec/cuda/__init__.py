"""What runs on an NVIDIA GPU only: fused kernels, tree attention in two parts, graphs, and the memory that they take.

Every file but the kernels' own imports without Triton, FlashInfer and a GPU; `cuda.support` says what is missing.
"""
