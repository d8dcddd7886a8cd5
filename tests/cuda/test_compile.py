"""The Triton kernels compile for the GPUs that SGLang is used on: the compiler needs none of them, and finds what the
interpreter lets pass (types that change in a loop, layouts, what a pointer may be made of)."""

from __future__ import annotations

from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed: it comes with torch on Linux")

INT64, INT8 = "*i64", "*u8"


def compile_for(kernel: Any, capability: int, constants: dict[str, Any], **types: str) -> Any:
    """types: of the arguments that are not named here, by their names; all others are int64 tensors."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {name: types.get(name, INT64) for name in kernel.arg_names}
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32))


@pytest.mark.parametrize("full_mask", [False, True])
@pytest.mark.parametrize(("capability", "block"), [(80, 8), (90, 64), (90, 1)])
def test_the_merge_kernel_compiles(capability: int, block: int, full_mask: bool) -> None:
    from sglang_hetero_spec.cuda.merge_kernel import merge_kernel

    constants = {"COLUMNS": 8, "FULL_MASK": full_mask, "BATCH_BLOCK": 32, "BLOCK": block}
    compiled = compile_for(merge_kernel, capability, constants, mask=INT8, width="i32")
    assert compiled.asm["cubin"], "machine code"
    assert compiled.metadata.shared < 48 * 1024, "no opt-in shared memory"
