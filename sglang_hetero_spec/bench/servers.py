"""The servers of a run: started here, or running somewhere already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sglang_hetero_spec.bench.arms import BEST, HETERO, NGRAM, NONE, STANDALONE, Arm
from sglang_hetero_spec.bench.counters import ServerInfo, read_info
from sglang_hetero_spec.bench.errors import BenchError
from sglang_hetero_spec.commands.output import UsageError
from sglang_hetero_spec.pool.errors import listed
from sglang_hetero_spec.pool.kinds import MAX_NUM_DRAFT_TOKENS
from sglang_hetero_spec.serving import flags, groups
from sglang_hetero_spec.serving.errors import ServingError
from sglang_hetero_spec.serving.remote import Remote, parse_url
from sglang_hetero_spec.serving.server import ServerPlan

LESS_MEMORY = "close other programs, or choose fewer --arms, a smaller --target-params or --order grouped."
# Where the memory does not hold all servers, those that are compared most are up together.
_FIRST = (NONE, HETERO, BEST)
_BY_ALGORITHM = {None: NONE, "STANDALONE": STANDALONE, "NGRAM": NGRAM, "HETERO": HETERO}


@dataclass(frozen=True)
class Engine:
    """How servers are started. context: None for the model's own. longest: tokens of the longest request, answer
    included. busiest: requests in flight."""

    target: str
    device: str
    dtype: str
    threads: int | None
    context: int | None
    longest: int
    busiest: int

    def options(self, number: int) -> tuple[str, ...]:
        """What all of `number` servers have in common."""
        on_cpu = self.device == "cpu"
        room = self.longest + 3 * MAX_NUM_DRAFT_TOKENS
        common = flags.common(
            self.target,
            self.device,
            self.dtype,
            context=self.context,
            busiest=self.busiest,
            tokens=room * max(8, self.busiest) if on_cpu else None,
            share=0.5 if on_cpu else min(0.8, 0.85 / number),
        )
        return (*common, "--enable-metrics")


def plan_servers(arms: Sequence[Arm], engine: Engine, remote: Sequence[str]) -> dict[str, ServerPlan]:
    """By name, those that are to be started: not `remote`."""
    by_name = {arm.server: arm for arm in arms if arm.server not in remote and arm.url is None}
    mine = {name: by_name[name] for name in (*_FIRST, *by_name) if name in by_name}
    common = engine.options(max(1, len(mine)))
    environ = flags.environ(engine.device, engine.threads)
    return {
        name: ServerPlan(name, (*common, *arm.options), environ, title_of(name, arms), LESS_MEMORY)
        for name, arm in mine.items()
    }


def title_of(server: str, arms: Sequence[Arm]) -> str:
    """HETERO's arms share a server that is called by none of them."""
    return "HETERO" if server == HETERO else next(arm.title for arm in arms if arm.server == server)


def group_servers(
    plans: Sequence[ServerPlan], engine: Engine, num_params: int, one_at_a_time: bool
) -> list[list[ServerPlan]]:
    """Which are up together: all that the memory holds. BenchError where it does not hold one."""
    if one_at_a_time:
        return [[plan] for plan in plans]
    try:
        return groups.groups(plans, engine.device, groups.server_bytes(num_params, engine.dtype))
    except groups.TooLarge as error:
        raise BenchError(f"{error}, or choose a smaller --target-params.") from None


def find_remotes(arms: Sequence[Arm], urls: Sequence[tuple[str, str]]) -> dict[str, Remote]:
    """Servers that run already, by name: --url, and those of the arms file. urls: (arm or "", address); an address
    without a name is that of the arm whose algorithm the server has. BenchError for one that does not answer."""
    found: dict[str, Remote] = {}
    servers = {arm.name: arm.server for arm in arms} | {arm.server: arm.server for arm in arms}
    given = [*urls, *((arm.name, arm.url) for arm in arms if arm.url is not None)]
    for name, url in given:
        remote = parse_url(name, url)
        info = _ask(remote)
        name = name or _BY_ALGORITHM.get(info.algorithm, "")
        if name not in servers:
            raise BenchError(
                f"--url {url}: "
                + (
                    f"no arm `{name}` is measured"
                    if name
                    else "what it serves is no arm that is known by its algorithm"
                )
                + f"; give NAME={url} with one of {listed(servers)}."
            )
        server = servers[name]
        if server in found:
            raise BenchError(f"--url {url}: `{server}` has a server already ({found[server]}); give one for each.")
        found[server] = replace(remote, name=server, title=f"{title_of(server, arms)} at {remote}")
    return found


def _ask(remote: Remote) -> ServerInfo:
    try:
        return read_info(remote)
    except ServingError:
        raise BenchError(
            f"--url {remote}: no server of SGLang answers there; start it first, or leave --url out and one is started."
        ) from None


def parse_named_url(text: str) -> tuple[str, str]:
    """[NAME=]http://HOST:PORT -> (NAME or "", address). ValueError."""
    name, equals, url = text.partition("=")
    if not equals or "/" in name or ":" in name:
        name, url = "", text
    try:
        parse_url(name, url)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return name, url
