"""A net of links for each test."""

from collections.abc import Iterator

import pytest

from tests.runtime.links.harness import Net


@pytest.fixture
def net() -> Iterator[Net]:
    """Return an empty net, which is closed afterwards."""
    made = Net()
    yield made
    made.close()
