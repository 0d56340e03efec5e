"""The arm of `bench/lanes.py` for a device in the simulator: right results, no made-up times."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench import arms
from bench.arms import Arm, first_difference, run_arm
from bench.blocks import build
from bench.device import BYTES
from bench.workloads import synthetic
from kernels.backend import BackendName, DeviceUnavailable, open_backend
from kernels.gpu import ed25519
from tests.kernels.gpu.compiled import KERNELS


def test_the_arm_equals_the_serial_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statuses and hashes are the serial arm's, and everything that the device did is named."""
    payments = synthetic("uniform", accounts=12, per_block=5, blocks=2, seed=3)
    workload = build(payments, seed=3, is_signed=False)
    monkeypatch.setattr(arms, "DEVICE", replace(arms.DEVICE, is_simulator_allowed=True))
    monkeypatch.setattr("bench.device.COPY_BYTES", 1 << 12)
    arms_: tuple[BackendName, ...] = ("serial", "gpu")
    runs = [
        run_arm(
            Arm(backend=name, threads=1), workload, repeat=1, is_signed=False, directory=tmp_path
        )
        for name in arms_
    ]
    assert first_difference(runs[0], runs[1]) is None
    figures = runs[1].device
    assert figures is not None
    kernels = figures["kernels"]
    assert {"copy_in", "copy_back", "walk_short", "hash_transactions"} <= set(kernels)
    assert kernels["hash_transactions"]["calls"] == 2
    # The simulator's events take no time, so there is nothing to divide by.
    assert all(item["threads_per_s"] is None for item in kernels.values())
    assert all(item["of_bandwidth"] is None for item in kernels.values())


def test_bytes_are_those_of_kernels() -> None:
    """The table of bytes names kernels and copies, and nothing else."""
    names = {name.split(".")[1] for name in KERNELS} | {ed25519.KERNEL, "copy_in", "copy_back"}
    assert set(BYTES) <= names


def test_the_simulator_is_no_device() -> None:
    """Whoever asks for a device does not get the simulator, whose times mean nothing."""
    with pytest.raises(DeviceUnavailable, match="the simulator is no device"):
        open_backend("gpu")
