"""The contract, its transport, and the conformance suite for whoever implements it."""

import pytest

pytest.register_assert_rewrite(
    "tests.engine_api.conformance", "tests.engine_api.conformance_calls", "tests.engine_api.driver"
)
