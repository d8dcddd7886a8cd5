"""`custom_params["hetero"]` of a request: a drafter, a task, or the tag that we put there ourselves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from sglang_hetero_spec.router.errors import OverrideError, shortened
from sglang_hetero_spec.router.tag import PAIR_KEY, Route, is_tag

_LISTED_NAMES = 20
NO_NAMES: Mapping[str, str] = {}
READ_FROM = "read_from"


def read_override(
    override: object,
    drafter_of_task: Mapping[str, str],
    drafters: Collection[str],
    second_of_task: Mapping[str, str] = NO_NAMES,
    idle: Collection[str] = (),
    model_of: Mapping[str, str] = NO_NAMES,
    has_pairs: bool = True,
) -> Route:
    """The route that a request asks for; OverrideError, in one sentence that lists the known names, if it cannot.

    `{"drafter": name}`, `{"drafters": [name, name]}` or `{"task": id}`. A tag comes back as it is: SGLang may send the
    parameters of a tagged request again (`n` samples of one prompt), and that must change nothing. second_of_task: of
    tasks that two drafters serve. idle: drafters that draft nothing, of which no pair can be made, nor of two with the
    same model. model_of: an adapter's base, for others themselves. has_pairs: whether the pool serves any.
    """
    known = f"the drafters {_listed(drafters)} and the tasks {_listed(drafter_of_task)}"
    form = f'give {{"drafter": name}}, {{"drafters": [name, name]}} or {{"task": id}}, from {known}.'
    if not isinstance(override, dict):
        raise OverrideError(f'custom_params["hetero"] is {_kind(override)}, not an object; {form}')
    if is_tag(override):
        try:
            route = Route.from_tag(override)
        except ValueError as error:
            raise OverrideError(f'custom_params["hetero"] is a tag of which `{error}` is not right; {form}') from None
        _check_name("drafter", route.drafter, drafters)
        if route.second is not None:
            _check_pair(route.drafters, drafters, idle, model_of)
        if route.task is not None:
            _check_name("task", route.task, drafter_of_task)
        return route
    if len(override) != 1 or not override.keys() <= {"drafter", PAIR_KEY, "task"}:
        keys = ", ".join(f"`{shortened(str(key), 32)}`" for key in list(override)[:4]) or "none"
        raise OverrideError(
            f'custom_params["hetero"] has the keys {keys}{" and more" if len(override) > 4 else ""}; {form}'
        )
    ((key, name),) = override.items()
    if key == PAIR_KEY and not has_pairs:
        raise OverrideError(
            f'custom_params["hetero"] has `{PAIR_KEY}`, and this pool, whose pool.json has no `merged_draft_tokens`,'
            f" serves no pairs; give one drafter of {_listed(drafters)}."
        )
    if key == PAIR_KEY:
        return _pair(name, drafters, idle, model_of)
    if not isinstance(name, str):
        raise OverrideError(f'custom_params["hetero"]["{key}"] is {_kind(name)}, not a string; {form}')
    if key == "drafter":
        _check_name(key, name, drafters)
        return Route(None, name, None, "request")
    _check_name(key, name, drafter_of_task)
    return Route(name, drafter_of_task[name], None, "request", second_of_task.get(name))


def is_excerpt(override: object) -> bool:
    """`{"read_from": n}` names no drafter: it leaves the request to the router, and says what that is to read."""
    return isinstance(override, dict) and override.keys() == {READ_FROM}


def excerpt_of(override: Mapping[str, object], text: str | None) -> str | None:
    """The part of a prompt that belongs to this request alone: its characters from `read_from` on, and all where those
    are blank. A prompt of ids is read as ever. OverrideError if it is not a number from 0 on."""
    start = override[READ_FROM]
    if not isinstance(start, int) or isinstance(start, bool) or start < 0:
        raise OverrideError(
            f'custom_params["hetero"]["{READ_FROM}"] is {_kind(start) if not isinstance(start, int) else start}, not a'
            " number of characters; give the place in the prompt from where on the router is to read, 0 for all."
        )
    if not isinstance(text, str) or not text[start:].strip():
        return text
    return text[start:]


def handed_over(override: object, heirs: Mapping[str, str]) -> object:
    """A tag of a request whose drafter was unloaded since, with who serves it now; anything else as it is."""
    if not isinstance(override, dict) or not is_tag(override):
        return override
    pair = override.get(PAIR_KEY)
    names = [override["drafter"], *(pair[1:] if isinstance(pair, list) else ())]
    if not all(isinstance(name, str) for name in names) or heirs.keys().isdisjoint(names):
        return override
    first, *others = dict.fromkeys(heirs.get(name, name) for name in names)
    tag = {key: value for key, value in override.items() if key != PAIR_KEY} | {"drafter": first}
    return tag | {PAIR_KEY: [first, *others]} if others else tag


def _pair(names: object, drafters: Collection[str], idle: Collection[str], model_of: Mapping[str, str]) -> Route:
    if not (isinstance(names, list) and len(names) == 2 and all(isinstance(name, str) for name in names)):
        raise OverrideError(
            f'custom_params["hetero"]["{PAIR_KEY}"] is {_kind(names)}, not a list of two names; give two different'
            f" drafters of {_listed(drafters)}."
        )
    _check_pair((names[0], names[1]), drafters, idle, model_of)
    return Route(None, names[0], None, "request", names[1])


def _check_pair(
    names: tuple[str, ...], drafters: Collection[str], idle: Collection[str], model_of: Mapping[str, str]
) -> None:
    first, second = names
    for name in names:
        _check_name("drafter", name, drafters)
        if name in idle:
            raise OverrideError(
                f'custom_params["hetero"]["{PAIR_KEY}"] has `{shortened(name)}`, which drafts nothing; give'
                f' {{"drafter": name}} with one of {_listed(drafters)}.'
            )
    if first == second:
        raise OverrideError(
            f'custom_params["hetero"]["{PAIR_KEY}"] has `{shortened(first)}` twice; give two different drafters.'
        )
    if model_of.get(first, first) == model_of.get(second, second):
        raise OverrideError(
            f'custom_params["hetero"]["{PAIR_KEY}"] has `{shortened(first)}` and `{shortened(second)}`, which draft'
            " with one model, and it keeps the keys of one of them; give two of different models."
        )


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
