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
    """drafter: number of the drafter in the pool. reader: the drafter that has read all of the request's history
    up to its last window, or None. admitted: drafters that were given the request. serial: never the same for two
    requests of this process.
    """

    route: Route
    drafter: int
    may_draft: bool
    reader: int | None = None
    admitted: set[int] = field(default_factory=set)
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
