"""The doctor: every check has a figure, what is wrong has a way out, and nothing is left behind."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest

from engine import doctor
from engine.config import Settings
from engine.doctor import (
    Level,
    check_disk,
    check_engine_api,
    check_gossip,
    check_home,
    check_http,
    examine,
)
from tests.engine.homes import Home


def test_a_machine_is_examined_and_left_as_it_was(tmp_path: Path) -> None:
    """All checks are made for a home that does not exist yet, and no file is left."""
    home = tmp_path / "home"
    checks = {item.name: item for item in examine(home, Settings(http_address="127.0.0.1:0"))}
    assert list(checks) == [
        "versions", "processor", "signatures", "device", "clock", "home", "disk", "engine_api",
        "http", "query", "gossip",
    ]  # fmt: skip
    assert "per second" in checks["signatures"].value
    assert checks["signatures"].level == Level.OK
    assert "MB/s, fdatasync" in checks["disk"].value
    assert checks["home"].level == Level.NOTE
    assert "numpy" in checks["versions"].value
    assert list(tmp_path.iterdir()) == []


def test_the_rate_of_signatures_is_that_of_real_work() -> None:
    """Rows differ, and every scalar has the size that a signer's has: less is judged sooner."""
    keys, made, messages = doctor._signatures()
    scalars = [int.from_bytes(row[32:].tobytes(), "little") for row in made]
    assert len(set(scalars)) == len({row.tobytes() for row in messages}) == doctor.SIGNATURES
    assert 2**250 < sorted(scalars)[len(scalars) // 2] < max(scalars) < 2**252
    assert np.array_equal(made[:, :32], keys)


def test_a_home_names_its_chain_and_its_holder(tmp_path: Path) -> None:
    """A home that is open names the process; one that is closed does not; a damaged one fails."""
    folder = tmp_path / "home"
    home = Home(folder)
    try:
        assert "open in process" in check_home(folder).value
    finally:
        home.close()
    check = check_home(folder)
    assert check.level == Level.OK
    assert home.maker.hash.hex() in check.value
    (folder / "LOCK").write_text(f"{os.getpid()}\n")
    assert "not open" in check_home(folder).value, "a process id that came again"
    (folder / "LOCK").unlink()
    assert "not open" in check_home(folder).value
    (folder / "FORMAT").write_bytes(b"x")
    check = check_home(folder)
    assert check.level == Level.FAIL
    assert check.what_to_do


def test_addresses_that_are_taken_or_wrong_are_told(tmp_path: Path) -> None:
    """A port in use is a note, since it may be this node; an impossible address is a failure."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert check_http("http", address).level == Level.NOTE
        assert check_engine_api(address).level == Level.NOTE
        check = check_gossip(f"tcp://{address}", "")
        assert (check.level, address in check.value) == (Level.NOTE, True)
    assert check_http("http", "").level == Level.NOTE
    assert check_http("query", "127.0.0.1:99999").level == Level.FAIL
    assert check_gossip("", "").level == Level.NOTE
    assert check_gossip("127.0.0.1:0", "").level == Level.FAIL, "it does not begin with tcp://"
    assert check_gossip("tcp://192.0.2.1:0", "").level == Level.FAIL, "the address is nobody's"
    assert check_gossip("tcp://127.0.0.1:0", "").level == Level.OK
    assert check_gossip("tcp://127.0.0.1:0", "no peer").level == Level.FAIL, "no node would start"
    assert check_engine_api("unix:relative").level == Level.FAIL
    assert check_engine_api(f"unix:{tmp_path}/{'x' * 200}").level == Level.FAIL
    assert check_engine_api(f"unix:{tmp_path}/e.sock").level == Level.OK


def test_a_disk_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    """A folder that takes no file is told with what to do."""
    place = Path("/proc")
    check = check_disk(place, 0)
    assert check.level == Level.FAIL
    assert "write access" in check.what_to_do
    assert check_disk(tmp_path / "not" / "yet", 0).level != Level.FAIL
    check = check_disk(tmp_path, 2**62)
    assert check.level == Level.FAIL, "a node would refuse every block"
    assert "free_bytes_min" in check.what_to_do


def test_a_home_that_others_may_not_see_is_a_failure(tmp_path: Path) -> None:
    """Both checks of a home say so, instead of ending all the others."""
    if os.getuid():
        pytest.skip("changing the user takes root")
    hidden = tmp_path / "hidden"
    hidden.joinpath("home").mkdir(parents=True)
    hidden.chmod(0o700)
    for path in (*tmp_path.parents, tmp_path):
        if path.is_relative_to("/tmp/pytest-of-root"):
            path.chmod(0o755)
    os.seteuid(65_534)
    try:
        checks = [check_home(hidden / "home"), check_disk(hidden / "home", 0)]
    finally:
        os.seteuid(0)
    assert [(check.level, "Permission denied" in check.value) for check in checks] == [
        (Level.FAIL, True),
        (Level.FAIL, True),
    ]
