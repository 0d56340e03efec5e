"""The executor as a process: what it says, what it keeps, how it ends, and when it does not start.

Each process is ended by the test that started it, by its own id.
"""

import http.client
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from engine_api.client import EngineApiClient
from engine_api.types import EngineApiError, ErrorCode
from tests.campaign.chain import UNFINALIZED_MAX, Block
from tests.campaign.kills import deadline, empty_request
from tests.campaign.process import POLL_S, call
from tests.system.conftest import MakeSubject
from tests.system.executors import extend, finalize, send

FILE_BYTES_MAX = 300_000
"""of every file that a process writes, where the disk is to be full"""


def ask(address: str, path: str) -> tuple[int, str]:
    """Return status and text of a page."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def wait_for_work(client: EngineApiClient, parent: Block) -> None:
    """Wait for transactions that never come, until the executor lets go."""
    request = replace(empty_request(parent), wait_ms=50_000)
    with suppress(EngineApiError):  # whether it is answered or cut off is not the question here
        client.get_payload(request, deadline())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_life(make: MakeSubject, number: signal.Signals) -> None:
    """Blocks are logged and counted, a second start is refused, a signal ends it, nothing is lost.

    Finalized blocks are final after the next start, and a VALID one above them is executed again.
    A call that waits does not hold the end up.
    """
    subject = make()
    client = subject.start()
    final = extend(subject, client, subject.genesis, [3, 200, 0])
    finalize(client, final)
    above = extend(subject, client, final, [5])
    lines = [line for line in subject.executor.log() if line["event"] == "block"]
    assert [line["height"] for line in lines] == [1, 2, 3, 4]
    assert lines[1]["transactions"] == 200
    assert lines[1]["hash"] == subject.chain.ancestors(final)[1].hash.hex()
    assert {"decode", "execute", "state_hash"} <= set(lines[1]["us"])
    assert lines[1]["tx_per_s"] > 0

    pages = subject.executor.wait_ready()["http"]
    assert ask(pages, "/healthz") == (200, "ok\n")
    assert ask(pages, "/readyz") == (200, "serving\n")
    metrics = ask(pages, "/metrics")[1]
    for line in ("tos_blocks_total 4.0", "tos_transactions_total 208.0", "tos_finalized_height 3"):
        assert line in metrics

    second = call("run", "--home", str(subject.executor.home))
    assert second.returncode == 2
    assert "store.locked" in second.stderr
    assert str(subject.executor.pid) in second.stderr

    waiting = threading.Thread(target=wait_for_work, args=(client, above))
    waiting.start()
    assert subject.executor.stop(number) == 0
    # Otherwise it was cut off: it did not end by itself in time.
    assert subject.executor.log()[-1]["event"] == "stopped", subject.executor.log_text()
    waiting.join()
    client.close()

    with subject.start() as client:
        status = client.get_status(deadline())
        assert (status.finalized.height, status.finalized.hash) == (3, final.hash)
        assert [item.hash for item in status.unfinalized] == [above.hash]
        body = next(client.bodies_by_hash([above.hash], deadline()))
        assert (body.header, bytes(body.payload)) == (above.header, above.payload)


def test_a_signal_while_starting_ends_the_start(make: MakeSubject) -> None:
    """Whoever stops a node that has not served yet need not wait for it."""
    subject = make()
    subject.executor.start()
    while not subject.executor.log():
        time.sleep(POLL_S)
    assert subject.executor.stop() == 0
    assert subject.executor.log()[-1]["event"] in ("stopped", "stopped while starting")


def test_a_full_disk_is_an_error_of_the_call_and_nothing_is_lost(make: MakeSubject) -> None:
    """Where no file may grow any more, blocks are refused (retry later), and the rest serves on.

    After a restart with room the same block is VALID.
    """
    subject = make()
    client = subject.start()
    parent = extend(subject, client, subject.genesis, [3])
    finalize(client, parent)
    limits = (FILE_BYTES_MAX, FILE_BYTES_MAX)
    resource.prlimit(subject.executor.pid, resource.RLIMIT_FSIZE, limits)
    with pytest.raises(EngineApiError) as caught:
        extend(subject, client, parent, [600] * UNFINALIZED_MAX)
    assert caught.value.code == ErrorCode.RESOURCE_EXHAUSTED
    assert "store.full" in caught.value.sentence
    status = client.get_status(deadline())
    assert status.finalized.height == 1
    assert not client.health(deadline()).not_serving
    refused = max(subject.chain.blocks.values(), key=lambda block: block.height)
    client.close()
    assert subject.executor.stop() == 0
    with subject.start() as client:
        again = client.get_status(deadline())
        assert [item.hash for item in again.unfinalized] == [i.hash for i in status.unfinalized]
        assert send(client, refused).verdict.name == "VALID"


def test_a_store_that_fails_ends_the_process(make: MakeSubject) -> None:
    """When the disk takes no finalization, the process says why and ends with another code than 0.

    The folder of the history is taken away under the running process.
    """
    subject = make()
    client = subject.start()
    block = extend(subject, client, subject.genesis, [3])
    shutil.rmtree(subject.executor.home / "history")
    with pytest.raises(EngineApiError) as caught:
        finalize(client, block)
    assert caught.value.code == ErrorCode.INTERNAL
    client.close()
    assert subject.executor.wait() == 1
    events = [line["event"] for line in subject.executor.log()]
    assert "Stopped" in events
    assert events[-1] == "stopped"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of its own, taken away afterwards; only root can make one."""
    place = tmp_path / "d"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system of its own needs root and mount")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_home_that_cannot_be_written_is_explained(make: MakeSubject, small_disk: Path) -> None:
    """On a disk that became read-only, the process does not start, and says what to do."""
    subject = make(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    try:
        tried = call("run", "--home", str(subject.executor.home))
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert tried.returncode == 2
    for word in ("store.unwritable", str(subject.executor.home), "what to do", "Read-only"):
        assert word in tried.stderr
    assert "Traceback" not in tried.stderr


def test_a_disk_that_runs_full_is_told(make: MakeSubject, small_disk: Path) -> None:
    """On a small disk blocks are refused before it is full, and old ones can still be read."""
    subject = make(small_disk, ("--http-address", ""))
    client = subject.start()
    first = extend(subject, client, subject.genesis, [3])
    finalize(client, first)
    with (small_disk / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, os.statvfs(small_disk).f_bavail * 4096 - 200_000)
    with pytest.raises(EngineApiError) as caught:
        extend(subject, client, first, [1_500])
    assert caught.value.code == ErrorCode.RESOURCE_EXHAUSTED
    body = next(client.bodies_by_range(1, 1, deadline()))
    assert bytes(body.payload) == first.payload
    client.close()
    assert subject.executor.stop() == 0


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--device", "gpu"), 3, ["process.device", "--device cpu"]),
        (("--http-address", "0.0.0.0:1"), 2, ["http.address"]),
        (("--engine-api-address", "example.org:1"), 2, ["engine_api.address_host"]),
        (("--keep-blocks", "-1"), 2, ["config.value", "flag --keep-blocks"]),
    ],
)
def test_what_cannot_start_says_why(
    make: MakeSubject, flags: tuple[str, str], code: int, words: list[str]
) -> None:
    """A device that is missing, or a setting that cannot be used, has an exit code of its own."""
    home = str(make().executor.home)
    tried = call("run", "--home", home, *flags)
    assert tried.returncode == code, tried.stderr
    for word in words:
        assert word in tried.stderr
    assert "Traceback" not in tried.stderr


def test_a_folder_that_is_no_home_is_explained(tmp_path: Path) -> None:
    """A folder without a chain is not run, and `init` is named."""
    tried = call("run", "--home", str(tmp_path))
    assert tried.returncode == 2
    assert "store.no_home" in tried.stderr
    assert "init" in tried.stderr
