"""A small model of tokens per second: fitted on a run, checked on what it did not see, carried over to an H100."""
