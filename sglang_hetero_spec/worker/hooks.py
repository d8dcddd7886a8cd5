"""Where the worker reaches into SGLang. The functions are in the modules named; patches/ has the ledger."""

from __future__ import annotations

from sglang_hetero_spec.hooks import Hook

_SRT = "sglang.srt"
_OURS = "sglang_hetero_spec.worker"

HOOKS = (
    Hook(
        target=f"{_SRT}.arg_groups.speculative_hook._resolve_speculative_algorithm_alias",
        kind="around",
        function=f"{_OURS}.startup_hooks.keep_algorithm_name",
        why="SGLang reads the draft path as one model's config; HETERO's is a pool of them.",
        retire="SGLang probes the draft path only for algorithms of its own.",
    ),
    Hook(
        target=f"{_SRT}.arg_groups.boundary_reduction.resolve_boundary_reduction",
        kind="around",
        function=f"{_OURS}.startup_hooks.hide_draft_path",
        why="SGLang reads the draft path as one model's config once more; drafters follow the target's setting.",
        retire="SGLang probes the draft path only for algorithms of its own.",
    ),
    Hook(
        target=f"{_SRT}.model_executor.model_runner_components.spec_aux_hidden_state._resolve_eagle_aux_hidden_state",
        kind="around",
        function=f"{_OURS}.startup_hooks.skip_single_draft_config",
        why="It would read one draft model's layers from the pool directory to size the KV cache.",
        retire="SGLang lets an algorithm say what its drafts need per token.",
    ),
    Hook(
        target=f"{_SRT}.model_executor.pool_configurator.DefaultPoolConfigurator.__init__",
        kind="after",
        function=f"{_OURS}.startup_hooks.count_draft_kv",
        why="SGLang counts the KV of one draft shaped like the target; HETERO has several, each its own shape.",
        retire="SGLang lets an algorithm say what its drafts need per token.",
    ),
    Hook(
        target=f"{_SRT}.mem_cache.allocation_sizing.get_req_to_token_extra_context_len",
        kind="after",
        function=f"{_OURS}.startup_hooks.hold_decode_reserve",
        why="With pages of one token SGLang's slot table is narrower than what a step allocates: near the context "
        "limit it would be written past its end (into the next request's row on CUDA).",
        retire="SGLang sizes the table by get_alloc_reserve_per_decode for every page size.",
    ),
    Hook(
        target=f"{_SRT}.managers.tokenizer_manager.TokenizerManager._create_tokenized_object",
        kind="around",
        function=f"{_OURS}.routing_hooks.route_request",
        why="Requests are routed once, where their text is known, and tagged before they reach the scheduler.",
        retire="SGLang offers a request hook before the scheduler.",
    ),
    Hook(
        target=f"{_SRT}.managers.scheduler.Scheduler._create_generation_req",
        kind="after",
        function=f"{_OURS}.routing_hooks.attach_request_state",
        why="The scheduler's request needs its drafter's number as a plain attribute.",
        retire="SGLang lets a worker keep state on a request.",
    ),
    Hook(
        target=f"{_SRT}.speculative.eagle_utils.eagle_sample",
        kind="around",
        function=f"{_OURS}.sampling.sample_exactly",
        why="On CPU SGLang verifies greedily whatever the temperature; min-p and custom logit processors are not "
        "applied in verification anywhere.",
        retire="SGLang samples in tree verification on every device, with all sampling parameters.",
    ),
    Hook(
        target=f"{_SRT}.managers.scheduler_components.batch_result_processor"
        ".SchedulerBatchResultProcessor._resolve_spec_v2_tokens",
        kind="after",
        function=f"{_OURS}.metrics.count_step",
        why="Accept counts per drafter exist only where a step's result meets its batch.",
        retire="SGLang hands a step's result and batch to the speculative worker.",
    ),
    Hook(
        target=f"{_SRT}.managers.tokenizer_manager.TokenizerManager._calculate_spec_decoding_metrics",
        kind="after",
        function=f"{_OURS}.routing_hooks.report_in_meta_info",
        why="SGLang divides by one width for all requests; ours is the drafter's, and the route is reported beside it.",
        retire="SGLang reports the number of proposed drafts per request.",
    ),
    Hook(
        target=f"{_SRT}.managers.tokenizer_control_mixin.TokenizerControlMixin.load_lora_adapter",
        kind="around",
        function=f"{_OURS}.lora_hooks.load_adapter",
        why="SGLang's adapters are the target's; HETERO's belong to drafters, and their names are routed to.",
        retire="SGLang lets a speculative worker take adapters.",
    ),
    Hook(
        target=f"{_SRT}.managers.tokenizer_control_mixin.TokenizerControlMixin.unload_lora_adapter",
        kind="around",
        function=f"{_OURS}.lora_hooks.unload_adapter",
        why="SGLang's adapters are the target's; HETERO's belong to drafters, and their names are routed to.",
        retire="SGLang lets a speculative worker take adapters.",
    ),
    Hook(
        target=f"{_SRT}.managers.scheduler.Scheduler.load_lora_adapter",
        kind="around",
        function=f"{_OURS}.lora_hooks.serve_adapter",
        why="SGLang gives an adapter to the target; the draft worker must have it.",
        retire="SGLang lets a speculative worker take adapters.",
    ),
    Hook(
        target=f"{_SRT}.managers.scheduler.Scheduler.unload_lora_adapter",
        kind="around",
        function=f"{_OURS}.lora_hooks.drop_adapter",
        why="SGLang takes an adapter from the target; the draft worker must let it go.",
        retire="SGLang lets a speculative worker take adapters.",
    ),
)
