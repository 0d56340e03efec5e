"""Tests, in the same tree as what they test."""

from runtime.starting import require_assertions

require_assertions("what stands below tests/", "tests and simulations are assertions")
