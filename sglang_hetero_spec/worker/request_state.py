"""What HETERO keeps of a request. It hangs on SGLang's Req, so it lives exactly as long as the request."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sglang_hetero_spec.router.route import Route

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import Req

_serials = itertools.count()


@dataclass
class RequestState:
    """drafters: numbers of its drafters in the pool, one or two. readers: those of them that have read all of the
    request's history up to their last window. admitted: drafters that were given the request. lag: how many of the
    tokens committed last one of two drafters may not have proposed. serial: never the same for two requests of this
    process.
    """

    route: Route
    drafters: tuple[int, ...]
    may_draft: bool
    readers: set[int] = field(default_factory=set)
    admitted: set[int] = field(default_factory=set)
    lag: int = 0
    serial: int = field(default_factory=lambda: next(_serials))


def attach_state(req: Req, state: RequestState) -> None:
    req.hetero = state


def state_of(req: Req) -> RequestState:
    return req.hetero


def drafting_is_exact(sampling_params: Any, custom_logit_processor: str | None) -> bool:
    """Whether SGLang's tree verification is exact for these parameters.

    Penalties and minimum lengths count the tokens generated so far; verification applies the counts of the root
    to every node of the tree (eagle_utils.py, "relaxed version of penalties"). With the root alone they are exact.
    A custom logit processor may look at anything, so it gets one token a step as well.
    """
    return (
        sampling_params.frequency_penalty == 0.0
        and sampling_params.presence_penalty == 0.0
        and sampling_params.repetition_penalty == 1.0
        and sampling_params.min_new_tokens == 0
        and custom_logit_processor is None
    )
