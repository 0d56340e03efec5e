"""Signatures on a device in the simulator: a verifier that judges, fails or lies, and its host.

The simulator runs no Ed25519; what verifies here is the host's own path in the device's place.
"""

import ctypes
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from nacl.signing import SigningKey
from numpy.typing import NDArray

from engine.errors import InvalidPayload
from engine.transition import Execution, execute_payload
from kernels.gpu.backend import GpuBackend
from kernels.gpu.device import Device
from kernels.gpu.failures import DeviceFailed
from kernels.host import HostBackend
from kernels.layout import U8
from spec import oracle
from tests.engine.ledgers import (
    CHAIN_ID,
    LEDGER,
    context,
    engine_result,
    key,
    open_state,
    oracle_result,
)
from tests.kernels.gpu.simulated.arms import SETTINGS


class HostVerifier:
    """Verifies by the host's own path, as a device would; refuses or lies when told to."""

    def __init__(self, fault: str) -> None:
        """fault: empty, `fail` or `lie`."""
        self._host = HostBackend("serial", 1)
        self._fault = fault
        self.calls = 0
        self.resident = 0

    def verify(self, public_keys: U8, signatures: U8, messages: U8) -> NDArray[np.bool_]:
        """Judge, fail, or turn the first verdict round."""
        self.calls += 1
        if self._fault == "fail":
            raise DeviceFailed("signatures: the device is gone")
        verdicts = self._host.verify_signatures(public_keys, signatures, messages).view(np.bool_)
        return np.concatenate((~verdicts[:1], verdicts[1:])) if self._fault == "lie" else verdicts

    def verify_resident(
        self, public_keys: int, signatures: int, messages: int, length: int, count: int
    ) -> NDArray[np.bool_]:
        """Judge rows that lie in memory of the simulated device."""
        self.resident += 1
        rows = []
        for address, width in ((public_keys, 32), (signatures, 64), (messages, length)):
            memory: Any = (ctypes.c_uint8 * (count * width)).from_address(address)
            rows.append(np.frombuffer(memory, np.uint8).reshape(count, width))
        return self.verify(*rows)

    def close(self) -> None:
        """Close the path."""
        self._host.close()


@pytest.mark.parametrize("fault", ["", "fail", "lie"])
def test_signatures_that_the_device_fails_at(fault: str) -> None:
    """Verdicts are the host's, whether the device judges, is gone or lies; small batches stay."""
    told: list[str] = []
    settings = replace(SETTINGS, crossover_signatures=2, check_blocks=1)
    verifier = HostVerifier(fault)
    backend = GpuBackend(HostBackend("serial", 1), Device(), settings, told.append, verifier)
    signer = SigningKey(bytes(32))
    messages = np.arange(24, dtype=np.uint8).reshape(3, 8)
    signatures = np.array(
        [list(signer.sign(row.tobytes()).signature) for row in messages], np.uint8
    )
    keys = np.tile(np.frombuffer(bytes(signer.verify_key), np.uint8), (3, 1))
    signatures[1, 3] ^= 1
    for _ in range(2):
        verdicts = backend.verify_signatures(keys, signatures, messages)
        assert verdicts.view(np.bool_).tolist() == [True, False, True]
    assert backend.verify_signatures(keys[:1], signatures[:1], messages[:1]).tolist() == [1]
    assert verifier.calls == (1 if fault else 2)
    assert len(told) == (1 if fault else 0)
    backend.close()


@pytest.mark.parametrize("fault", ["", "fail", "lie"])
def test_signatures_of_a_block(fault: str) -> None:
    """A block's signatures are judged where its columns are, also some of them alone."""
    signers = [SigningKey(bytes([i]) * 32) for i in range(4)]
    keys = [bytes(signer.verify_key) for signer in signers]

    def signed(i: int, nonce: int) -> Any:
        blank = oracle.Transaction(CHAIN_ID, nonce, 9, 10, 1, keys[i], key(3))
        message = oracle.signed_message(blank, LEDGER.domain)
        return oracle.replace(blank, signature=signers[i].sign(message).signature)

    lanes = [[signed(i, 0), signed(i, 1)] for i in range(4)]
    forged = [*lanes[:2], [lanes[2][0], oracle.replace(lanes[2][1], amount=11)], lanes[3]]
    start = [oracle.Account(name, 1000) for name in keys]
    told: list[str] = []
    verifier = HostVerifier(fault)
    settings = replace(SETTINGS, crossover_signatures=1, check_blocks=1)
    backend = GpuBackend(HostBackend("serial", 1), Device(), settings, told.append, verifier)
    for given in (forged, lanes):
        payload = oracle.encode_payload(given)
        expected, _ = oracle_result(start, payload, verify=True)
        result, _ = engine_result(open_state(start, backend), payload, verify=True)
        assert result == expected
    some = Execution(is_verified=lambda hashes: np.arange(len(hashes)) % 3 == 0)
    with pytest.raises(InvalidPayload) as refusal:
        execute_payload(
            open_state(start, backend), oracle.encode_payload(forged), context(), execution=some
        )
    assert refusal.value.position == 5
    assert verifier.resident == (1 if fault else 3)
    assert len(told) == (1 if fault else 0)
    backend.close()
