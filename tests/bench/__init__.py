"""Tests of the measuring scripts; what they measure is tested elsewhere."""
