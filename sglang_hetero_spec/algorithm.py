"""HETERO as SGLang sees a speculative algorithm: its predicates, and what it does to the server's arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sglang.srt.arg_groups.overrides import resolving_view
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm
from sglang.srt.speculative.spec_registry import CustomSpecAlgo

from sglang_hetero_spec.cuda.streams import refuse_streams
from sglang_hetero_spec.cuda.support import check_switches
from sglang_hetero_spec.errors import HeteroError, refuse
from sglang_hetero_spec.pool import Pool, PoolError, load_pool, local_folder
from sglang_hetero_spec.server_args import (
    refuse_for_adapters,
    refuse_for_backend,
    refuse_for_foreign,
    refuse_unsupported,
)

if TYPE_CHECKING:
    import torch
    from sglang.srt.managers.overlap_utils import FutureMap
    from sglang.srt.server_args import ServerArgs

NAME = "HETERO"
# As SGLang does for its own algorithms (arg_groups/speculative_hook.py): verification multiplies the batch.
DEFAULT_MAX_RUNNING_REQUESTS = 48


class HeteroAlgorithm(CustomSpecAlgo):
    """Registered as `HETERO`. One instance per process.

    draft_cell_bytes: KV bytes per token of all draft models, set by the worker once it has loaded them and read
    when SGLang sizes its KV pools.
    """

    draft_cell_bytes: int = 0

    # SGLang asks `is_standalone` wherever a draft model without hidden states matters: capture modes, dummy
    # verify inputs for CUDA graphs, KV accounting (SGLANG.md, C.3).
    def is_standalone(self) -> bool:
        return True

    def supports_grammar_overlap(self) -> bool:
        return True

    # In the enum's interface, not in CustomSpecAlgo's (SGLANG.md, C.1).

    def carries_draft_hidden_states(self) -> bool:
        return False

    def need_topk(self) -> bool:
        """False: only the bonus token travels between steps, a drafter's state is the worker's."""
        return False

    def get_platform_worker_cls(self) -> type | None:
        return None

    def create_future_map(
        self,
        device: torch.device,
        req_to_token_pool: Any,
        needs_cpu_seq_lens: bool = True,
        needs_confidence_relay: bool = False,
    ) -> FutureMap:
        from sglang.srt.managers.overlap_utils import FutureMap

        # Always with lengths on the host: drafters that read trees size their masks by them, whatever the target's
        # attention backend asks for.
        return FutureMap(device, self, req_to_token_pool, True, needs_confidence_relay)

    def handle_server_args(self, server_args: ServerArgs) -> None:
        """server_args: SGLang's stand-in; what is assigned is recorded as a resolved argument."""
        cfg = resolving_view(server_args)
        pool = _checked_pool(cfg)
        server_args.speculative_num_steps = max((spec.num_steps for spec in pool.drafters), default=0) or 1
        # Attention backends verify chains where this is 1, and a merged tree branches.
        branches = 2 if pool.merged_draft_tokens is not None else 1
        server_args.speculative_eagle_topk = max(branches, *(spec.topk for spec in pool.drafters))
        server_args.speculative_num_draft_tokens = max(pool.widest, server_args.speculative_num_steps + 1)
        if cfg.max_running_requests is None:
            server_args.max_running_requests = DEFAULT_MAX_RUNNING_REQUESTS
        if cfg.device == "cpu":
            server_args.disable_overlap_schedule = True  # SGLang speculates synchronously on CPU


def validate_server_args(server_args: ServerArgs) -> None:
    """Called by SGLang before anything is loaded. Raises HeteroError or PoolError, or exits a command with 2."""
    from sglang_hetero_spec.plugin import verify_hooks

    cfg = resolving_view(server_args)
    try:
        problems = verify_hooks()
        if problems:
            raise HeteroError(f"HETERO cannot run in this process: {problems[0]} (`hetero-spec doctor` shows all).")
        refuse_unsupported(cfg)
        check_switches()
        refuse_streams(cfg)
    except HeteroError as error:
        refuse(error)
    _checked_pool(cfg)


def _checked_pool(cfg: Any) -> Pool:
    try:
        if cfg.speculative_draft_model_path is None:
            raise HeteroError(
                "--speculative-algorithm HETERO needs the pool directory in --speculative-draft-model-path."
            )
        target = local_folder(cfg.tokenizer_path or cfg.model_path, cfg.revision)
        pool = load_pool(cfg.speculative_draft_model_path, target=target)
        refuse_for_foreign(cfg, pool)
        refuse_for_adapters(cfg, pool)
        refuse_for_backend(cfg, pool)
        return pool
    except (HeteroError, PoolError) as error:
        refuse(error)
        raise


def register_algorithm() -> None:
    """Idempotent. Raises HeteroError where SGLang's interface has grown beyond what this class knows."""
    from sglang.srt.speculative import spec_registry

    if spec_registry.get_spec(NAME) is not None:
        return
    missing = missing_methods()
    if missing:
        raise HeteroError(
            f"This SGLang asks speculative algorithms for {', '.join(missing)}, which this plugin does not answer; "
            "install the SGLang version that the plugin names."
        )

    @SpeculativeAlgorithm.register(
        NAME, supports_overlap=True, validate_server_args=validate_server_args, spec_class=HeteroAlgorithm
    )
    def _worker_class(server_args: ServerArgs) -> type:
        from sglang_hetero_spec.worker.hetero_worker import HeteroWorker

        return HeteroWorker


def missing_methods() -> list[str]:
    """Public methods of SGLang's enum that HeteroAlgorithm lacks. SGLang itself compares only is_* and supports_*."""
    on_the_enum_only = {"from_string", "register"}
    public = {
        name
        for name, value in vars(SpeculativeAlgorithm).items()
        if callable(getattr(value, "__func__", value)) and not name.startswith("_")
    }
    members = {member.name for member in SpeculativeAlgorithm}
    return sorted(public - members - on_the_enum_only - set(dir(HeteroAlgorithm)))
