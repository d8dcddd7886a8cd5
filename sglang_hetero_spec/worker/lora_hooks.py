"""SGLang's own /load_lora_adapter and /unload_lora_adapter, for the adapters of drafters.

The tokenizer process checks and routes, every scheduler serves; both apply the same change to the same pool, in the
order of the requests, so that a drafter's number is the same everywhere. Schedulers do it between two forwards, and no
request is waited for: those of an unloaded adapter go on with its base.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sglang.srt.managers.io_struct import LoRAUpdateOutput
from sglang.srt.runtime_context import get_parallel

from sglang_hetero_spec.errors import HeteroError
from sglang_hetero_spec.pool import Pool, PoolError
from sglang_hetero_spec.pool.running import is_gone, with_adapter, without_adapter
from sglang_hetero_spec.worker.routing_hooks import desk_of, is_on

if TYPE_CHECKING:
    from sglang.srt.managers.io_struct import LoadLoRAAdapterReqInput, UnloadLoRAAdapterReqInput
    from sglang.srt.managers.scheduler import Scheduler
    from sglang.srt.managers.tokenizer_manager import TokenizerManager


async def load_adapter(
    original: Callable[..., Any], manager: TokenizerManager, obj: LoadLoRAAdapterReqInput, *args: Any, **kwargs: Any
) -> LoRAUpdateOutput:
    """Around TokenizerControlMixin.load_lora_adapter. The name is routed to once every scheduler has the adapter."""
    if not is_on():
        return await original(manager, obj, *args, **kwargs)
    manager.auto_create_handle_loop()
    async with _lock(manager):
        try:
            if get_parallel().tp_size > 1:
                raise HeteroError("Adapters of drafters need --tp-size 1: their matrices are not split between ranks.")
            pool = await asyncio.to_thread(with_adapter, desk_of(manager).pool, obj.lora_name, obj.lora_path)
        except (HeteroError, PoolError) as error:
            return _refused(error)
        # SGLang's own number, which adapters of drafters have not: it tells schedulers the base, so that they need not
        # compare weights between two forwards.
        obj.lora_id = pool.drafters[-1].base
        failed = [found for found in await manager.update_lora_adapter_communicator(obj) if not found.success]
        if failed:
            return failed[0]
        desk_of(manager).renew(pool)
        return _done(pool)


async def unload_adapter(
    original: Callable[..., Any], manager: TokenizerManager, obj: UnloadLoRAAdapterReqInput, *args: Any, **kwargs: Any
) -> LoRAUpdateOutput:
    """Around TokenizerControlMixin.unload_lora_adapter. No request is given the name from here on."""
    if not is_on():
        return await original(manager, obj, *args, **kwargs)
    manager.auto_create_handle_loop()
    async with _lock(manager):
        try:
            pool = without_adapter(desk_of(manager).pool, obj.lora_name)
        except PoolError as error:
            return _refused(error)
        desk_of(manager).renew(pool)
        failed = [found for found in await manager.update_lora_adapter_communicator(obj) if not found.success]
        return failed[0] if failed else _done(pool)


def serve_adapter(
    original: Callable[..., Any], scheduler: Scheduler, recv_req: LoadLoRAAdapterReqInput
) -> LoRAUpdateOutput:
    """Around Scheduler.load_lora_adapter."""
    if not is_on():
        return original(scheduler, recv_req)
    name, path, base = recv_req.lora_name, recv_req.lora_path, recv_req.lora_id
    return _changed(scheduler, lambda worker: worker.add_adapter(name, path, base))


def drop_adapter(
    original: Callable[..., Any], scheduler: Scheduler, recv_req: UnloadLoRAAdapterReqInput
) -> LoRAUpdateOutput:
    """Around Scheduler.unload_lora_adapter."""
    if not is_on():
        return original(scheduler, recv_req)
    return _changed(scheduler, lambda worker: worker.remove_adapter(recv_req.lora_name))


def _changed(scheduler: Scheduler, change: Callable[[Any], None]) -> LoRAUpdateOutput:
    try:
        change(scheduler.draft_worker)
    except (HeteroError, PoolError, OSError, RuntimeError) as error:  # RuntimeError: no memory left
        return _refused(error)
    return _done(scheduler.draft_worker.pool)


def _lock(manager: TokenizerManager) -> asyncio.Lock:
    lock = vars(manager).get("hetero_adapters_lock")
    if lock is None:
        lock = manager.hetero_adapters_lock = asyncio.Lock()
    return lock


def _refused(error: Exception) -> LoRAUpdateOutput:
    return LoRAUpdateOutput(success=False, error_message=str(error))


def _done(pool: Pool) -> LoRAUpdateOutput:
    adapters = {spec.name: str(spec.path) for spec in pool.drafters if spec.kind == "lora" and not is_gone(spec)}
    return LoRAUpdateOutput(success=True, loaded_adapters=adapters)
