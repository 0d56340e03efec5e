"""A backend on the simulated device, and blocks on it beside the oracle."""

from collections.abc import Iterator
from typing import Any

import pytest

from engine.state import State
from kernels.backend import DeviceSettings
from kernels.gpu.backend import GpuBackend
from kernels.gpu.device import Device
from kernels.gpu.opening import open_gpu
from spec import oracle
from tests.engine.ledgers import CHAIN_ID, LEDGER, engine_result, key, open_state, oracle_result

SETTINGS = DeviceSettings(crossover_transactions=1, check_blocks=0, is_simulator_allowed=True)


class Gpu:
    """A backend whose every batch goes to the device, and what it told."""

    def __init__(self, settings: DeviceSettings = SETTINGS) -> None:
        """Open it."""
        self.told: list[str] = []
        self.backend: GpuBackend = open_gpu(settings, 1, 0, self.told.append)


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    """Open a backend that nothing may go wrong with."""
    opened = Gpu()
    yield opened
    opened.backend.close()
    assert opened.told == [], opened.told


@pytest.fixture
def device() -> Iterator[Device]:
    """Open the simulated device alone."""
    opened = Device()
    yield opened
    opened.close()


def transfer(
    sender: int, nonce: int, amount: int, recipient: bytes, *, fee: int = 1, valid_until: int = 9
) -> Any:
    """Return a transaction of the oracle between accounts of `ledgers`."""
    return oracle.Transaction(CHAIN_ID, nonce, valid_until, amount, fee, key(sender), recipient)


def check_block(
    state: State, made: list[Any], transactions: list[Any], height: int = 1, ledger: Any = LEDGER
) -> tuple[list[Any], Any]:
    """Assert that a block comes to what the oracle says, forwards, back and forwards again.

    Returns the accounts after it, and the outcome or None.
    """
    payload = oracle.encode_payload(oracle.pack_lanes(transactions))
    before = state.state_hash()
    assert before == oracle.state_hash(made)
    expected, after = oracle_result(made, payload, height, ledger=ledger)
    result, outcome = engine_result(state, payload, height, ledger=ledger)
    assert result == expected
    if outcome is None:
        assert state.state_hash() == before
        return made, None
    state.undo([outcome.changes])
    assert state.state_hash() == before
    state.redo([outcome.changes])
    assert state.state_hash() == outcome.state_hash
    return after, outcome


__all__ = ["SETTINGS", "Gpu", "check_block", "device", "gpu", "open_state", "transfer"]
