"""Claims that are checked in Numba's simulator: `tests/kernels/gpu/test_simulator.py` runs them."""
