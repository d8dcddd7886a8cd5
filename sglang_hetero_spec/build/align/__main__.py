"""For several devices: `accelerate launch -m sglang_hetero_spec.build.align --target ...`, as `hetero-spec align`."""

import os
import sys

from sglang_hetero_spec.cli import main

if __name__ == "__main__":
    if int(os.environ.get("RANK", "0")) > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    sys.exit(main(["align", *sys.argv[1:]]))
