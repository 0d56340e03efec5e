"""Tests of the kernels: against the oracle, against each other, at the edges of the integers."""
