"""One file per command of `hetero-spec`: `add(subcommands)` declares its options, `run(args)` does it; `output` and
`progress` are what they say.

The modules import nothing heavy at the top: `hetero-spec --help` imports them all.
"""
