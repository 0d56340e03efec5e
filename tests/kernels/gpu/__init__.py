"""Tests of the device's kernels: in the simulator, by the compiler alone, and on a device."""
