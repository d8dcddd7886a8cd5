"""HETERO from an SGLang frontend program: who drafts for a single `gen` call, where the program knows better.

    import sglang as sgl
    from sglang_hetero_spec import frontend

    @sgl.function
    def report(s, facts):
        s += facts
        query, text = s.fork(2)
        query += "As SQL: " + frontend.gen("sql", task="sql", max_tokens=64)
        text += "In one sentence: " + sgl.gen("sentence", max_tokens=64)   # left to the router

    sgl.set_default_backend(frontend.HeteroEndpoint("http://localhost:30000"))
    state = report.run(facts=...)

Runs in the program's process, not in the server. What served a call is in `state.get_meta_info(name)["hetero"]`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sglang.lang.backend.runtime_endpoint import RuntimeEndpoint
from sglang.lang.interpreter import StreamExecutor
from sglang.lang.ir import SglGen, SglSamplingParams

# A variable of a program's state, which SGLang copies to the state's forks.
_READ = "hetero: read from"


class HeteroEndpoint(RuntimeEndpoint):
    """SGLang's backend for a running server (lang/backend/runtime_endpoint.py), with `gen`'s overrides, and each call
    routed by what the program wrote since the call before it.

    A request's prompt is the whole text so far. The router reads the two ends of a long prompt, and the first end
    belongs to other calls. A server of any algorithm will do; only HETERO reads what is added.
    """

    def generate(self, s: StreamExecutor, sampling_params: SglSamplingParams) -> tuple[str, dict[str, Any]]:
        answer, meta_info = super().generate(s, _with_route(s, sampling_params))
        self._has_written(s, len(answer[0] if isinstance(answer, list) else answer))
        return answer, meta_info

    def generate_stream(
        self, s: StreamExecutor, sampling_params: SglSamplingParams
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        yield from super().generate_stream(s, _with_route(s, sampling_params))
        self._has_written(s, 0)

    @staticmethod
    def _has_written(s: StreamExecutor, num_chars: int) -> None:
        """num_chars: of the answer, those that the text does not have yet."""
        s.variables[_READ] = len(s.text_) + num_chars


def gen(
    name: str | None = None,
    max_tokens: int | None = None,
    *,
    drafter: str | None = None,
    task: str | None = None,
    drafters: Sequence[str] | None = None,
    **sampling: Any,
) -> SglGen:
    """`sgl.gen` whose request is drafted for by `drafter`, by the drafter of `task`, or by two `drafters`.

    sampling: the other arguments of `sgl.gen`, but no `choices`: those are scored, not drafted. ValueError for more
    than one override. A name that the pool does not have is refused by the server, in one sentence that lists those
    that it has; as any refusal in a program, it is then `state.error()`.
    """
    import sglang

    given = {"drafter": drafter, "task": task, "drafters": None if drafters is None else list(drafters)}
    override = {key: value for key, value in given.items() if value is not None}
    if len(override) > 1:
        raise ValueError(f"gen({name!r}) has {' and '.join(override)}; give one of them.")
    if sampling.get("choices") and override:
        raise ValueError(
            f"gen({name!r}) has choices, which are scored and not drafted; leave out {next(iter(override))}."
        )
    expression = sglang.gen(name, max_tokens, **sampling)
    if override:
        expression.sampling_params.dtype = _Override(override, expression.sampling_params.dtype)
    return expression


@dataclass(frozen=True)
class _Override:
    """Stands in the place of a call's `dtype`. SGLang's interpreter hands on those fields of a call that it knows;
    of them this is the one that the backend reads and the server never sees."""

    hetero: dict[str, Any]
    dtype: type | str | None

    def __repr__(self) -> str:
        """What RuntimeEndpoint calls an invalid dtype."""
        return f"{self.hetero} of sglang_hetero_spec.frontend.gen, which needs frontend.HeteroEndpoint as the backend"


@dataclass
class _RoutedParams(SglSamplingParams):
    hetero: dict[str, Any] | None = None

    def to_srt_kwargs(self) -> dict[str, Any]:
        return super().to_srt_kwargs() | {"custom_params": {"hetero": self.hetero}}


def _with_route(s: StreamExecutor, params: SglSamplingParams) -> SglSamplingParams:
    fields = {field.name: getattr(params, field.name) for field in dataclasses.fields(SglSamplingParams)}
    if isinstance(params.dtype, _Override):
        return _RoutedParams(**fields | {"dtype": params.dtype.dtype}, hetero=params.dtype.hetero)
    start = s.variables.get(_READ, 0)
    # `join` gathers the variables of forks in lists.
    return _RoutedParams(**fields, hetero={"read_from": start}) if isinstance(start, int) and start else params
