"""The conformance suite against the fake, in this process and through a socket."""

import pytest

from tests.engine_api.conformance import Conformance
from tests.engine_api.conftest import SocketDriver, ToyDriver
from tests.engine_api.driver import Driver


class TestFake(Conformance):
    """The fake by itself: the suite can be passed."""

    @pytest.fixture
    def driver(self, toy_driver: ToyDriver) -> Driver:
        """Return the engine in this process."""
        return toy_driver


class TestClientOverServer(Conformance):
    """The same engine through client and server: the transport changes nothing."""

    @pytest.fixture
    def driver(self, socket_driver: SocketDriver) -> Driver:
        """Return the engine behind a socket."""
        return socket_driver
