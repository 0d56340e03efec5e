"""Kernels for a device: the same arrays in, the same bits out; nothing here is needed on a CPU."""
