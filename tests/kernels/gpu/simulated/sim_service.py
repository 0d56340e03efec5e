"""A whole executor on the device in the simulator: blocks stay VALID when the device goes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.backends import open_first
from engine.events import Event, PathDisabled
from engine_api.types import Verdict
from kernels.gpu.backend import GpuBackend
from kernels.gpu.failures import DeviceFailed
from tests.engine.homes import Home
from tests.kernels.gpu.simulated.arms import SETTINGS


def test_a_device_that_is_lost_in_the_middle_of_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block is VALID all the same, it is said loudly and once, and the node goes on."""
    events: list[Event] = []
    backend = open_first("gpu", 1, 0, replace(SETTINGS, check_blocks=1), events.append)
    assert isinstance(backend, GpuBackend)
    home = Home(tmp_path / "home", backend=lambda: backend)
    try:
        first = home.maker.block(None, 1)
        assert home.service.new_payload(first.header, first.payload).verdict is Verdict.VALID
        assert home.service.degraded == ""
        launch, left = backend.device.launch_blocks, [20]

        def fail_later(*arguments: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise DeviceFailed("a launch: the device is gone")
            launch(*arguments)

        monkeypatch.setattr(backend.device, "launch_blocks", fail_later)
        second = home.maker.block(first, 1)
        assert home.service.new_payload(second.header, second.payload).verdict is Verdict.VALID
        assert "the device is gone" in home.service.degraded
        assert [event for event in events if isinstance(event, PathDisabled)] == events
        assert len(events) == 1
        third = home.maker.block(second, 1)
        assert home.service.new_payload(third.header, third.payload).verdict is Verdict.VALID
    finally:
        home.close()
