"""One description of a place where this package reaches into SGLang beyond its public registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Hook:
    """A hook that `plugin.register` gives to SGLang's HookRegistry.

    target: dotted path of the upstream function or method.
    kind: `before`, `after`, `around` or `replace`, as in SGLang's HookType.
    function: ours; a dotted path "package.module.name" is imported only when the hook is registered.
    why: what would go wrong without it.
    retire: what must change upstream before it can go.
    """

    target: str
    kind: str
    function: str | Callable[..., object]
    why: str
    retire: str
