"""The backend by the name in a node's settings, where there is no device."""

import pytest

from engine.backends import device_settings, open_first
from engine.config import Settings
from engine.events import Event, report_nothing
from kernels.backend import CHECK_BLOCKS, DeviceSettings, DeviceUnavailable, open_backend
from kernels.signatures import VARIABLE
from runtime.errors import ExplainedError


def test_settings_say_how_a_device_is_used() -> None:
    """Keys of node.toml become the device's settings; zero MiB leaves the bound to the device."""
    assert device_settings(Settings()) == DeviceSettings(check_blocks=CHECK_BLOCKS)
    settings = Settings(device_crossover=7, device_check_blocks=0, device_memory_mib=3)
    assert device_settings(settings) == DeviceSettings(
        crossover_transactions=7, check_blocks=0, memory_bytes_max=3 << 20
    )


def test_names_without_a_device() -> None:
    """`auto` takes the CPU, `gpu` does not; nothing is reported."""
    try:
        open_backend("gpu").close()
    except DeviceUnavailable:
        events: list[Event] = []
        for name, wanted in (("auto", "cpu"), ("cpu", "cpu"), ("serial", "serial")):
            backend = open_first(name, 1, 0, None, events.append)
            assert (backend.name, backend.degraded) == (wanted, "")
            backend.close()
        with pytest.raises(DeviceUnavailable):
            open_first("gpu", 1, 0, None, events.append)
        assert events == []
    else:
        pytest.skip("this machine has a device")


def test_signatures_that_nobody_can_verify_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node whose variable names no path does not start, and says what to unset."""
    monkeypatch.setenv(VARIABLE, "fast")
    for name in ("auto", "cpu"):
        with pytest.raises(ExplainedError, match="no such path") as caught:
            open_first(name, 1, 0, None, report_nothing)
        assert caught.value.code == "process.signatures"
        assert VARIABLE in caught.value.what_to_do
