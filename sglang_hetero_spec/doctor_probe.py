"""The part of the doctor that imports torch and sglang: run as a child, it prints findings as JSON lines.

`python -m sglang_hetero_spec.doctor_probe` is the child; `probe()` starts it and reads what it found, also
where the child was killed halfway (an illegal instruction, no memory).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

MARK = "hetero-doctor: "
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class ProbeResult:
    """Findings (as `doctor.Check.as_dict`), and how the child failed, or None."""

    findings: list[dict[str, Any]]
    error: str | None


def probe(timeout_s: float = TIMEOUT_S, command: tuple[str, ...] = ("-m", __name__)) -> ProbeResult:
    """Run the child and collect its findings; never raises for what the child does."""
    try:
        child = subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        out, err, code = child.stdout, child.stderr, child.returncode
        error = None if code == 0 else f"looking into SGLang ended with exit code {code}: {_last_line(err)}"
    except subprocess.TimeoutExpired as late:
        out, error = late.stdout or b"", f"looking into SGLang took more than {timeout_s:.0f} s"
    return ProbeResult(_findings(out), error)


def _findings(out: bytes) -> list[dict[str, Any]]:
    lines = out.decode("utf-8", "replace").splitlines()
    found = []
    for line in lines:
        if line.startswith(MARK):
            try:
                found.append(json.loads(line.removeprefix(MARK)))
            except ValueError:  # the child died while it wrote
                continue
    return found


def _last_line(err: bytes) -> str:
    lines = [line.strip() for line in err.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _finding(name: str, status: str, detail: str, remedy: str = "") -> dict[str, str]:
    return {"name": name, "status": status, "detail": detail, "remedy": remedy}


def _torch() -> Iterator[dict[str, str]]:
    import torch

    yield _finding("PyTorch", "ok", torch.__version__)
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        yield _finding("CUDA", "ok", f"{torch.version.cuda}: {names}")
    else:
        yield _finding("CUDA", "ok", "none: SGLang runs on the CPU engine of this package")


def _kernels() -> Iterator[dict[str, str]]:
    """Before anything of SGLang: it imports sgl_kernel while its own modules load."""
    from sglang_hetero_spec import cpu

    cpu.enable()
    import sgl_kernel

    ours = bool(getattr(sgl_kernel, "HETERO_CPU_ENGINE", False))
    yield _finding("sgl_kernel", "ok", "our CPU engine stands in" if ours else "SGLang's own")
    import torch

    if torch.cuda.is_available():
        import flashinfer

        yield _finding("FlashInfer", "ok", flashinfer.__version__)


def _registered() -> Iterator[dict[str, str]]:
    from sglang.srt.plugins import load_plugins
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    load_plugins()
    algorithm = SpeculativeAlgorithm.from_string("HETERO")
    yield _finding("HETERO", "ok", f"registered ({type(algorithm).__name__})")


def _hooks() -> Iterator[dict[str, str]]:
    from sglang_hetero_spec.plugin import verify_hooks

    yield _listed("hooks", verify_hooks(), "every hook took hold", "use the pinned SGLang, unpatched, alone")


def _ledger() -> Iterator[dict[str, str]]:
    from sglang_hetero_spec.ledger import check_ledger

    yield _listed("ledger", check_ledger(), "SGLang's functions are those we know", "reinstall the pinned SGLang")


def _listed(name: str, problems: list[str], fine: str, remedy: str) -> dict[str, str]:
    return _finding(name, "fail", "; ".join(problems), remedy) if problems else _finding(name, "ok", fine)


# name, what looks, what to do if looking fails
_PARTS: tuple[tuple[str, Callable[[], Iterator[dict[str, str]]], str], ...] = (
    ("PyTorch", _torch, "reinstall torch as SGLang's metadata asks for it"),
    ("sgl_kernel", _kernels, "reinstall sglang; without CUDA, start with `hetero-spec serve`"),
    ("HETERO", _registered, "see the lines above; then reinstall sglang-hetero-spec"),
    ("hooks", _hooks, "reinstall sglang-hetero-spec"),
    ("ledger", _ledger, "reinstall sglang-hetero-spec"),
)


def main() -> None:
    """Print each finding as soon as it is made."""
    for name, look, remedy in _PARTS:
        try:
            for finding in look():
                print(MARK + json.dumps(finding), flush=True)
        except (Exception, SystemExit) as error:
            detail = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"
            print(MARK + json.dumps(_finding(name, "fail", detail, remedy)), flush=True)


if __name__ == "__main__":
    main()
