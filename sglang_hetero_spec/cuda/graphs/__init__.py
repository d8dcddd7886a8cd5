"""CUDA graphs of draft models: which forwards, at which batch sizes, from which tensors, within which budget."""
