"""From a request's text to its drafter, and back into its response."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sglang.srt.runtime_context import get_spec

from sglang_hetero_spec.algorithm import NAME
from sglang_hetero_spec.pool import Pool, load_pool, local_folder
from sglang_hetero_spec.pool.running import is_gone
from sglang_hetero_spec.router.route import OverrideError, RequestRouter, Route
from sglang_hetero_spec.worker.metrics import RouteTimer, build_route_timer
from sglang_hetero_spec.worker.request_state import RequestState, attach_state, drafting_is_exact

if TYPE_CHECKING:
    from sglang.srt.managers.io_struct import TokenizedGenerateReqInput
    from sglang.srt.managers.schedule_batch import Req
    from sglang.srt.managers.scheduler import Scheduler
    from sglang.srt.managers.tokenizer_manager import TokenizerManager

TAG = "hetero"  # the key in custom_params and in meta_info


def is_on() -> bool:
    return get_spec().speculative_algorithm == NAME


@dataclass
class Desk:
    """What the tokenizer process keeps for routing. pool: as it is now, with adapters that came or went."""

    pool: Pool
    router: RequestRouter
    timer: RouteTimer | None

    def route(self, text: str | None, input_ids: Any, override: object) -> Route:
        start = time.perf_counter()
        route = self.router.route(text, input_ids, override)
        if self.timer is not None:
            self.timer.observe(route, time.perf_counter() - start)
        return route

    def renew(self, pool: Pool) -> None:
        self.pool = pool
        self.router.renew(pool)


def desk_of(manager: TokenizerManager) -> Desk:
    desk = vars(manager).get("hetero_desk")
    if desk is None:
        args = manager.server_args
        # As the worker does: the mode that `vocab: auto` stands for decides which drafters an adapter may adapt.
        target = local_folder(args.tokenizer_path or args.model_path, args.revision)
        pool = load_pool(get_spec().speculative_draft_model_path, target=target)
        router = RequestRouter(pool, decode=_decoder(manager.tokenizer))
        desk = manager.hetero_desk = Desk(pool, router, build_route_timer())
    return desk


def _decoder(tokenizer: Any) -> Callable[[list[int]], str] | None:
    """A fast tokenizer's own decode, without what transformers wraps around it (0.1 ms, half of a route)."""
    if tokenizer is None:
        return None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return tokenizer.decode
    return lambda ids: backend.decode(ids, skip_special_tokens=False)


def route_request(original: Callable[..., Any], manager: TokenizerManager, obj: Any, *args: Any, **kwargs: Any) -> Any:
    """Around TokenizerManager._create_tokenized_object. A wrong override is a ValueError, which SGLang answers
    with HTTP 400."""
    from sglang.srt.managers.io_struct import GenerateReqInput

    if not is_on() or not isinstance(obj, GenerateReqInput):
        return original(manager, obj, *args, **kwargs)
    custom_params = obj.sampling_params.get("custom_params")
    if custom_params is not None and not isinstance(custom_params, dict):
        raise OverrideError(_not_an_object(desk_of(manager).pool))
    tokenized = original(manager, obj, *args, **kwargs)
    if tokenized.input_ids is not None and len(tokenized.input_ids) == 0 and tokenized.input_embeds is None:
        # SGLang 0.5.23 refuses empty ids, but a text of no tokens ends its scheduler.
        raise ValueError("The prompt has no tokens; give at least one.")
    params = tokenized.sampling_params
    desk = desk_of(manager)
    route = desk.route(tokenized.input_text, tokenized.input_ids, (params.custom_params or {}).get(TAG))
    params.custom_params = {**(params.custom_params or {}), TAG: route.to_tag()}
    tokenized.extra_key = cache_key(tokenized.extra_key, desk.pool, route)
    # On the request, not on its state: with n > 1 SGLang makes a new state for every sample, from a copy of this.
    obj.hetero_route = route
    return tokenized


def cache_key(given: str | None, pool: Pool, route: Route) -> str | None:
    """SGLang's name of the prefixes that a request shares. As with SGLang's own adapters of a target, two adapters
    share none: they would write different keys into the slots of one prefix, and the drafts of both suffer."""
    adapters = [name for name in route.drafters if pool.drafter(name).base is not None]
    return "|".join((*(() if given is None else (given,)), *(f"hetero:{name}" for name in adapters))) or given


def _not_an_object(pool: Pool) -> str:
    names = ", ".join(f"`{spec.name}`" for spec in pool.drafters if not is_gone(spec))
    return f'custom_params is not an object; give {{"hetero": {{"drafter": name}}}}, from the drafters {names}.'


def attach_request_state(
    req: Req, scheduler: Scheduler, recv_req: TokenizedGenerateReqInput, *_args: Any, **_kwargs: Any
) -> None:
    """After Scheduler._create_generation_req. Requests without a tag (warm-up, health) get the fallback."""
    if not is_on():
        return
    pool = scheduler.draft_worker.pool
    tag = (req.sampling_params.custom_params or {}).get(TAG)
    route = Route.from_tag(tag) if tag is not None else _fallback_route(pool)
    state = RequestState(
        route=route,
        drafters=scheduler.draft_worker.drafter_numbers(route),
        may_draft=drafting_is_exact(req.sampling_params, req.custom_logit_processor),
    )
    attach_state(req, state)
    scheduler.draft_worker.metrics.count_request(route)


def _fallback_route(pool: Pool) -> Route:
    return Route(task=None, drafter=pool.fallback_drafter, confidence=None, source="fallback")


def report_in_meta_info(
    _result: None, manager: TokenizerManager, meta_info: dict[str, Any], recv_obj: Any, i: int
) -> None:
    """After TokenizerManager._calculate_spec_decoding_metrics: the route, and rates by what was really proposed.

    The scheduler counts each step's verified nodes as SGLang's `cap_lens`, so proposed = capped - verify steps.
    """
    if not is_on():
        return
    route = vars(manager.rid_to_state[recv_obj.rids[i]].obj).get("hetero_route")
    if route is not None:
        meta_info[TAG] = route.to_tag()
    verify_ct = recv_obj.spec_verify_ct[i] if recv_obj.spec_verify_ct else 0
    meta_info.pop("spec_cap_length", None)
    meta_info.pop("spec_cap_lens_histogram", None)
    if verify_ct == 0:
        return
    num_proposed = recv_obj.spec_num_cap_tokens[i] - verify_ct
    num_correct = recv_obj.spec_num_correct_drafts[i]
    meta_info["spec_num_proposed_drafts"] = num_proposed
    meta_info["spec_accept_rate"] = num_correct / num_proposed if num_proposed else None
