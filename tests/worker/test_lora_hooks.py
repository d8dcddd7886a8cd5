"""What the two processes do of one request to load an adapter, and files that change under them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.pool import load_pool
from tests.pool.test_lora_entry import write_adapter, write_base
from tests.support.manifest import write_manifest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_base(tmp_path / "base")
    entry = {"name": "base", "kind": "standalone", "path": "base", "num_steps": 2, "vocab": "auto"}
    return write_manifest(tmp_path, [entry], fallback="base")


@pytest.fixture
def manager(sglang: None, root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from sglang_hetero_spec.worker import lora_hooks, routing_hooks

    monkeypatch.setattr(lora_hooks, "is_on", lambda: True)
    monkeypatch.setattr(lora_hooks, "get_parallel", lambda: SimpleNamespace(tp_size=1))
    monkeypatch.setattr(routing_hooks, "get_spec", lambda: SimpleNamespace(speculative_draft_model_path=str(root)))
    monkeypatch.setattr(routing_hooks, "build_route_timer", lambda: None)
    args = SimpleNamespace(tokenizer_path=None, model_path=str(root / "base"), revision=None)
    return SimpleNamespace(server_args=args, tokenizer=None, auto_create_handle_loop=lambda: None)


def test_both_processes_see_one_pool(manager: Any, root: Path) -> None:
    from sglang_hetero_spec.worker.routing_hooks import desk_of

    assert desk_of(manager).pool == load_pool(root, target=root / "base")
    assert desk_of(manager).pool.drafter("base").vocab == "shared"


def test_schedulers_are_told_the_base(manager: Any, tmp_path: Path) -> None:
    from sglang.srt.managers.io_struct import LoadLoRAAdapterReqInput, LoRAUpdateOutput

    from sglang_hetero_spec.worker import lora_hooks

    given: list[tuple[Any, ...]] = []
    worker = SimpleNamespace(add_adapter=lambda *told: given.append(told), pool=SimpleNamespace(drafters=()))

    async def send(obj: LoadLoRAAdapterReqInput) -> list[LoRAUpdateOutput]:
        return [lora_hooks.serve_adapter(_never, SimpleNamespace(draft_worker=worker), obj)]

    manager.update_lora_adapter_communicator = send
    path = str(write_adapter(tmp_path / "new"))
    request = LoadLoRAAdapterReqInput(lora_name="new", lora_path=path, lora_id="a client's")
    assert asyncio.run(lora_hooks.load_adapter(_never, manager, request)).success
    assert given == [("new", path, "base")]


def _never(*_: Any) -> None:
    raise AssertionError("SGLang's own")


def test_a_file_that_safetensors_does_not_read(tmp_path: Path) -> None:
    from sglang_hetero_spec.worker.lora_weights import read_adapter

    folder = write_adapter(tmp_path / "new")
    (folder / "adapter_model.safetensors").write_bytes(b"\x02" + b"\0" * 7 + b"[]")
    with pytest.raises(HeteroError, match="is no usable safetensors file"):
        read_adapter(folder, 1.0, torch.float32, "cpu")
