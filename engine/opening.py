"""From an open store to a service: a backend, the chain as it was left, and the pool.

Next: `recovery.py` (what a crash left), `service.py` (what is served).
"""

from engine.backends import open_first
from engine.events import Report, report_nothing
from engine.mempool import Listener
from engine.pool_keeper import PoolKeeper
from engine.pool_rules import PoolLimits
from engine.recovery import recover
from engine.service import Service
from engine.store.store import Store
from engine.verified import MARKS_MAX, VerifiedMarks
from engine_api.types import API_VERSION, Versions
from kernels.backend import Backend, DeviceSettings, open_backend


def open_service(
    store: Store,
    *,
    backend: str | Backend = "auto",
    threads: int | None = None,
    known_keys: int = 0,
    device: DeviceSettings | None = None,
    report: Report = report_nothing,
    pool_limits: PoolLimits | None = None,
    pool_listener: Listener | None = None,
    verified_max: int = MARKS_MAX,
    software: str = "tos",
) -> Service:
    """Recover from an open store and serve; the caller closes the store after the service.

    backend: "auto" (a device if there is one, else the CPU), "cpu", "gpu", "serial", or an open
    backend, which is then the service's to close. threads, known_keys, device: see
    `kernels.backend.open_backend`. Raises DeviceUnavailable, StoreError.
    """
    first = backend
    if isinstance(first, str):
        first = open_first(first, threads, known_keys, device, report)
    serial = first if first.name == "serial" else open_backend("serial")
    backends = [first] if first is serial else [first, serial]
    marks = VerifiedMarks(verified_max)
    try:
        executor = recover(store, first, serial=serial, marks=marks, report=report)
    except BaseException:
        for opened in backends:
            opened.close()
        raise
    keeper = PoolKeeper(executor, report=report, limits=pool_limits, listener=pool_listener)
    versions = Versions(api=API_VERSION, header=1, payload=1, state=1, software=software)
    service = Service(store, executor, keeper, backends=backends, versions=versions, report=report)
    service.load_pool()
    return service
