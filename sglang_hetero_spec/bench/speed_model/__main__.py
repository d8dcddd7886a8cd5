"""`python -m sglang_hetero_spec.bench.speed_model RUN`: the section of a run as markdown."""

from __future__ import annotations

import argparse
import json
import sys

from sglang_hetero_spec.bench.speed_model.render import render_markdown
from sglang_hetero_spec.bench.speed_model.section import section
from sglang_hetero_spec.commands.output import DONE, FAILED, say
from sglang_hetero_spec.errors import HeteroError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sglang_hetero_spec.bench.speed_model", description=__doc__)
    parser.add_argument("run", help="folder of a run of `hetero-spec bench`")
    parser.add_argument("--json", action="store_true", help="the section as one JSON object")
    args = parser.parse_args(arguments)
    try:
        found = section(args.run)
    except HeteroError as error:
        say(f"hetero-spec: {error}")
        return FAILED
    print(json.dumps(found, indent=1) if args.json else render_markdown(found))
    return DONE


if __name__ == "__main__":
    sys.exit(main())
