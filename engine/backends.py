"""The backend that a node's blocks are executed on, by the name in its settings."""

from functools import partial

from engine.config import Settings
from engine.events import PathDisabled, Report
from kernels.backend import Backend, DeviceSettings, DeviceUnavailable, open_backend
from kernels.signatures import PathUnavailable, VerdictDiffers
from runtime.errors import signatures_unusable


def device_settings(settings: Settings) -> DeviceSettings:
    """Return how a device is used under these settings."""
    memory_bytes = settings.device_memory_mib << 20
    return DeviceSettings(
        crossover_transactions=settings.device_crossover,
        check_blocks=settings.device_check_blocks,
        memory_bytes_max=memory_bytes or None,
    )


def open_first(
    name: str,
    threads: int | None,
    known_keys: int,
    device: DeviceSettings | None,
    report: Report,
) -> Backend:
    """Open "serial", "cpu", "gpu", or for "auto" a device if there is one, else the CPU.

    threads, known_keys, device: see `open_backend`. That a device is given up later is reported as
    a disabled path. Raises DeviceUnavailable, and ExplainedError where no path verifies signatures
    as it has to.
    """
    assert name in ("auto", "serial", "cpu", "gpu"), name

    def tell(why: str) -> None:
        report(PathDisabled(why=why))

    try:
        opened = partial(open_backend, threads=threads, known_keys=known_keys)
        if name != "auto":
            return opened(name, device=device, tell=tell)  # type: ignore[arg-type]  # one
        try:
            return opened("gpu", device=device, tell=tell)
        except DeviceUnavailable:
            return opened("cpu")
    except (PathUnavailable, VerdictDiffers) as error:
        raise signatures_unusable(error) from error
