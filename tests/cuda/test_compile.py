"""The Triton kernels compile for the GPUs that SGLang is used on: the compiler needs none of them, and finds what the
interpreter lets pass (types that change in a loop, layouts, what a pointer may be made of)."""

from __future__ import annotations

from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed: it comes with torch on Linux")

INT64, INT32, BYTES = "*i64", "*i32", "*u8"


def compile_for(kernel: Any, capability: int, constants: dict[str, Any], **types: str) -> Any:
    """types: of the arguments that are not named here, by their names; all others are int64 tensors."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {name: types.get(name, INT64) for name in kernel.arg_names}
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32))


@pytest.mark.parametrize("full_mask", [False, True])
@pytest.mark.parametrize(("capability", "block"), [(80, 8), (90, 64)])
def test_the_merge_kernel_compiles(capability: int, block: int, full_mask: bool) -> None:
    from sglang_hetero_spec.cuda.merge_kernel import merge_kernel

    constants = {"COLUMNS": 8, "FULL_MASK": full_mask, "BATCH_BLOCK": 32, "BLOCK": block}
    compiled = compile_for(merge_kernel, capability, constants, mask=BYTES, width="i32")
    assert compiled.asm["cubin"], "machine code"
    assert compiled.metadata.shared < 48 * 1024, "no opt-in shared memory"


def test_the_page_kernel_compiles() -> None:
    from sglang_hetero_spec.cuda.plan_kernel import page_kernel

    types = {"table": INT32, "starts": INT32, "indptr": INT32, "pages": INT32, "table_stride": "i32"}
    assert compile_for(page_kernel, 90, {"PAGE": 16, "BLOCK": 256}, **types).asm["cubin"]


def test_the_kernel_of_the_tree_call_compiles() -> None:
    from sglang_hetero_spec.cuda.plan_kernel import tree_call_kernel

    integers = ("table", "edge_starts", "prefix_starts", "kv_indptr", "mask_indptr", "slots")
    numbers = ("table_stride", "width", "window_left")
    types = dict.fromkeys(integers, INT32) | dict.fromkeys(numbers, "i32") | {"tree_mask": BYTES, "packed": BYTES}
    assert compile_for(tree_call_kernel, 90, {"BLOCK": 64}, **types).asm["cubin"]
