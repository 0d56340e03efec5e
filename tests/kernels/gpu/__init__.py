"""Tests of the device's kernels: what can be shown without a device, and what needs one."""
