"""A folder for the module path: it holds the `sgl_kernel` that SGLang finds when the CPU engine is on."""
