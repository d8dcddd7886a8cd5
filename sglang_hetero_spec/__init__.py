"""HETERO for SGLang: a pool of drafters, each request served by the one that knows its task."""

__version__ = "0.1.0"
SGLANG_VERSION = "0.5.23"
