"""The conformance suite of the contract against the real service, in process and over a socket."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine_api.client import EngineApiClient
from engine_api.server import EngineApiServer
from tests.engine.homes import Home, HomeDriver
from tests.engine_api.conformance import Conformance
from tests.engine_api.driver import Driver


class SocketHomeDriver(HomeDriver):
    """Drives a service through a server and a client."""

    def __init__(self, home: Home, address: str) -> None:
        """Serve a fresh home."""
        super().__init__(home)
        self._address = address
        self.failures: list[Exception] = []
        self._serve()

    @property
    def engine(self) -> Any:
        """The client."""
        return self._client

    def restart(self) -> None:
        """Stop the server, open the home anew, serve again."""
        self.stop()
        self.home.restart()
        self._serve()

    def stop(self) -> None:
        """End client and server."""
        self._client.close()
        self._server.stop()

    def _serve(self) -> None:
        service = self.home.service
        self._server = EngineApiServer(
            service,
            self._address,
            payload_bytes_max=service.payload_bytes_max,
            report=lambda _, error: self.failures.append(error),
        )
        address = self._server.start()
        self._client = EngineApiClient(address, payload_bytes_max=service.payload_bytes_max)


class TestService(Conformance):
    """The service in this process."""

    @pytest.fixture
    def driver(self, tmp_path: Path) -> Iterator[Driver]:
        """Return a driver of a fresh home."""
        home = Home(tmp_path / "home")
        yield HomeDriver(home)
        assert home.service.failure == ""
        home.close()


class TestServiceOverSocket(Conformance):
    """The service behind a Unix socket."""

    @pytest.fixture
    def driver(self, tmp_path: Path) -> Iterator[Driver]:
        """Return a driver of a fresh home behind a socket."""
        home = Home(tmp_path / "home")
        driver = SocketHomeDriver(home, f"unix:{tmp_path}/api/engine.sock")
        yield driver
        driver.stop()
        assert driver.failures == []
        assert home.service.failure == ""
        home.close()
