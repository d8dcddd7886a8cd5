"""`custom_params["hetero"]` of a request: a drafter, a task, or the tag that we put there ourselves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from sglang_hetero_spec.router.errors import OverrideError, shortened
from sglang_hetero_spec.router.tag import TAG_KEYS, Route

_LISTED_NAMES = 20


def read_override(override: object, drafter_of_task: Mapping[str, str], drafters: Collection[str]) -> Route:
    """The route that a request asks for; OverrideError, in one sentence that lists the known names, if it cannot.

    `{"drafter": name}` or `{"task": id}`. A tag comes back as it is: SGLang may send the parameters of a
    tagged request again (`n` samples of one prompt), and that must change nothing.
    """
    known = f"the drafters {_listed(drafters)} and the tasks {_listed(drafter_of_task)}"
    form = f'give {{"drafter": name}} or {{"task": id}}, from {known}.'
    if not isinstance(override, dict):
        raise OverrideError(f'custom_params["hetero"] is {_kind(override)}, not an object; {form}')
    if override.keys() == TAG_KEYS:
        try:
            route = Route.from_tag(override)
        except ValueError as error:
            raise OverrideError(f'custom_params["hetero"] is a tag of which `{error}` is not right; {form}') from None
        _check_name("drafter", route.drafter, drafters)
        if route.task is not None:
            _check_name("task", route.task, drafter_of_task)
        return route
    if len(override) != 1 or not override.keys() <= {"drafter", "task"}:
        keys = ", ".join(f"`{shortened(str(key), 32)}`" for key in list(override)[:4]) or "none"
        raise OverrideError(
            f'custom_params["hetero"] has the keys {keys}{" and more" if len(override) > 4 else ""}; {form}'
        )
    ((key, name),) = override.items()
    if not isinstance(name, str):
        raise OverrideError(f'custom_params["hetero"]["{key}"] is {_kind(name)}, not a string; {form}')
    if key == "drafter":
        _check_name(key, name, drafters)
        return Route(None, name, None, "request")
    _check_name(key, name, drafter_of_task)
    return Route(name, drafter_of_task[name], None, "request")


def _check_name(key: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise OverrideError(
            f'custom_params["hetero"]["{key}"] is `{shortened(name)}`, and this pool has no such {key};'
            f" give one of {_listed(known)}."
        )


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    shown = ", ".join(f"`{shortened(name)}`" for name in ordered[:_LISTED_NAMES])
    more = len(ordered) - _LISTED_NAMES
    return f"{shown} and {more} more" if more > 0 else shown or "(none)"


def _kind(value: object) -> str:
    """What JSON calls the type of the value; the value itself may be of any size."""
    if value is None:
        return "null"
    names: dict[type, str] = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
