"""Parts of a network that need no network: homes, processes, comparisons, lateness, figures."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from bench import devnet, network_rate
from bench.load_final import FinalHeights
from bench.network import homes
from bench.network.faults import LinkState
from bench.network.homes import Network, NetworkError, Place
from bench.network.judge import Judgement, check_reported, compare_chains
from bench.network.processes import Process, descendants, disk_bytes, sample
from bench.network.report import interval_ms
from bench.network.run import Options, _Window
from bench.network.watch import BlockSeen, Usage

WAIT_S = 20
"""far beyond what a process needs to begin or to end"""
PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
time.sleep(600)
"""
BUSY = """
import subprocess, sys, time
busy = "import time\\nwhile time.process_time() < 0.4: pass"
subprocess.run([sys.executable, "-c", busy], check=True)
print("ended", flush=True)
time.sleep(600)
"""
POLITE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
print("up", flush=True)
time.sleep(600)
"""


def network_of(folder: Path, count: int) -> Network:
    """Return homes that have only what relays change."""
    places = tuple(
        Place(number=i, home=folder / f"validator{i}", base_port=9_000) for i in range(count)
    )
    for place in places:
        place.executor_home.mkdir(parents=True)
        others = [other for other in places if other is not place]
        tables = "".join(
            f'\n[[peers]]\nvotes = "tcp://127.0.0.1:{other.port("votes")}"\n'
            f'sync = "tcp://127.0.0.1:{other.port("sync")}"\n'
            f'payloads = "tcp://127.0.0.1:{other.port("payloads")}"\n'
            for other in others
        )
        listen = f'listen_votes = "tcp://127.0.0.1:{place.port("votes")}"\n# clock_offset_ms = 0\n'
        place.home.joinpath("node.toml").write_text(listen + tables)
        peers = " ".join(f"aa@tcp://127.0.0.1:{other.port('gossip')}" for other in others)
        place.executor_home.joinpath("node.toml").write_text(f'gossip_peers = "{peers}"\n')
    return Network(folder=folder, places=places, genesis=folder / "genesis.json", chain={})


def test_relays_stand_between_all_that_dial(tmp_path: Path) -> None:
    """Every address of another is a relay's afterwards, its own ones stay, and ports differ."""
    network = network_of(tmp_path, 3)
    path = homes.insert_relays(network, LinkState(delay_ms=5), 7)
    text = path.read_text()
    assert '"delay_ms": 5' in text
    routes = json.loads(text)["routes"]
    assert len(routes) == 3 * 2 * 4
    assert len({route["listen"] for route in routes}) == len(routes)
    ports = {int(route["listen"].rpartition(":")[2]) for route in routes}
    assert ports <= set(homes.all_ports(3, 9_000, with_relays=True))
    for place in network.places:
        settings = tomllib.loads(place.home.joinpath("node.toml").read_text())
        assert settings["listen_votes"] == f"tcp://127.0.0.1:{place.port('votes')}"
        dialled = {peer[name] for peer in settings["peers"] for name in homes.LINKS}
        mine = [route for route in routes if route["dialler"] == place.number]
        assert dialled == {f"tcp://{r['listen']}" for r in mine if r["name"] != "gossip"}
        gossip = place.executor_home.joinpath("node.toml").read_text()
        assert all(r["listen"] in gossip for r in mine if r["name"] == "gossip")


def test_settings_are_written_before_the_tables(tmp_path: Path) -> None:
    """A commented setting is replaced, a missing one is added where it means something."""
    network = network_of(tmp_path, 2)
    path = network.places[0].home / "node.toml"
    homes.set_setting(path, "clock_offset_ms", -2_000)
    homes.set_setting(path, "log_level", "debug")
    found = tomllib.loads(path.read_text())
    assert found["clock_offset_ms"] == -2_000
    assert found["log_level"] == "debug"
    assert len(found["peers"]) == 1


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    """Only an empty folder, or one with the mark of an earlier run, is made room in."""
    folder = tmp_path / "home"
    homes.clear(folder)
    folder.joinpath("old").write_text("of an earlier run")
    homes.clear(folder)
    assert [path.name for path in folder.iterdir()] == [homes.MARK]
    folder.joinpath(homes.MARK).unlink()
    folder.joinpath("mine").write_text("precious")
    with pytest.raises(NetworkError) as caught:
        homes.clear(folder)
    assert caught.value.code == "network.folder"
    assert folder.joinpath("mine").exists()
    with pytest.raises(NetworkError) as caught:
        homes.clear(Path("/proc/tos"))
    assert caught.value.code == "network.unwritable"


def test_a_port_in_use_is_named() -> None:
    """Whoever starts a second network on the same ports is told which one is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(NetworkError) as caught:
            homes.check_ports([port])
        assert str(port) in caught.value.what


def until(is_so: object) -> None:
    """Wait for something that a process does."""
    assert callable(is_so)
    end_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < end_s, "it did not come to that"
        time.sleep(0.01)


def test_a_killed_process_leaves_no_family(tmp_path: Path) -> None:
    """Children that outlive their killed parent are found and ended, and nobody else."""
    process = Process(("-c", PARENT), tmp_path / "log")
    process.start()
    until(lambda: len(process.family()) == 1)
    child = process.family()[0]
    assert descendants(process.pid) == [child]
    process.kill()
    assert process.exit_code == -signal.SIGKILL
    assert sample(child) is not None
    assert process.end_family(after_s=0) == [child]
    until(lambda: sample(child) is None)
    assert process.family() == []


def test_what_was_not_started_here_gets_no_signal(tmp_path: Path) -> None:
    """A number that is none of the family is a bug of the caller."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as stranger:
        process = Process(("-c", PARENT), tmp_path / "log")
        process.start()
        with pytest.raises(AssertionError):
            process.send_to(stranger.pid, signal.SIGKILL)
        assert stranger.poll() is None
        process.kill()
        process.end_family(after_s=0)
        stranger.kill()


def test_a_process_that_ends_in_peace_gives_its_code(tmp_path: Path) -> None:
    """SIGTERM is asked first; the log's end is there to be read."""
    process = Process(("-c", POLITE), tmp_path / "log")
    process.start()
    until(lambda: "up" in process.log_tail())
    assert process.stop() == 3
    assert disk_bytes(tmp_path) > 0


def test_chains_are_compared_where_two_have_a_height() -> None:
    """A chain may be longer; a difference at any common height is found."""
    found = Judgement(heights=[3, 2, 1])
    compare_chains([[b"a", b"b", b"c"], [b"a", b"b"], [b"a"]], found)
    assert found.heights_compared == 2
    assert found.state_hash_equal
    compare_chains([[b"a", b"b", b"c"], [b"a", b"x"], [b"a"]], found)
    assert not found.state_hash_equal
    assert "height 2" in found.violations[0]


def test_what_was_called_final_must_stay() -> None:
    """A height that is missing, and one that is another block, are violations."""
    for reported, word in (({3: "cc"}, "lost"), ({2: "xx"}, "another block")):
        found = Judgement(heights=[2])
        check_reported({1: "aa", 2: "bb"}, {0: "genesis", 1: "aa"} | reported, found)
        assert len(found.violations) == 1
        assert word in found.violations[0]
    found = Judgement(heights=[2])
    check_reported({1: "aa", 2: "bb"}, {0: "genesis", 2: "bb"}, found)
    assert found.violations == []


def test_a_missed_height_is_final_with_the_next_one() -> None:
    """Finality is never dated before somebody saw it."""
    heights = FinalHeights(["http://127.0.0.1:1"])
    threads = [threading.Thread(target=heights._note, args=(height,)) for height in (4, 9)]
    for thread in threads:
        thread.start()
        thread.join()
    assert heights.highest == 9
    assert heights.seen_ns(1) == heights.seen_ns(4)
    assert heights.seen_ns(5) == heights.seen_ns(9)
    assert heights.seen_ns(10) is None


def test_the_interval_is_that_of_headers() -> None:
    """The median of differences; one block has none."""
    blocks = [
        BlockSeen(height=i, hash="", transaction_count=0, timestamp_ms=time_ms, seen_ns=0)
        for i, time_ms in enumerate((0, 400, 900, 1_300, 9_000))
    ]
    assert interval_ms(blocks) == 450
    assert interval_ms(blocks[:1]) is None


def test_the_interval_of_leaders_whose_clocks_are_apart_is_that_of_one_clock() -> None:
    """Every second leader is two seconds behind: its header is 1 ms after its parent's."""
    blocks = [
        BlockSeen(
            height=i, hash="", transaction_count=0, timestamp_ms=1_000 * (i - i % 2) + i % 2,
            seen_ns=500_000_000 * i,
        )
        for i in range(10)
    ]  # fmt: skip
    assert interval_ms(blocks) == 1
    assert interval_ms(blocks, are_clocks_apart=True) == 500
    assert interval_ms(blocks[:1], are_clocks_apart=True) is None


def test_every_share_of_the_processor_stands_in_its_column() -> None:
    """Four kinds of processes, four columns, in cores."""
    row = {
        "run": "highest", "rate": 57_661, "tx_per_s": {"offered": 79_517},
        "finality_ms": {"p50": 2_779, "p90": 4_095, "p99": 4_890},
        "cpu_percent": {"consensus": 28, "executor": 160, "load": 4, "machine": 197},
    }  # fmt: skip
    table = network_rate.side_by_side([row])
    cells = {str(column.header): list(column.cells) for column in table.columns}
    shown = [cells[f"{name}, cores"] for name in ("consensus", "executors", "load", "all")]
    assert shown == [["0.28"], ["1.60"], ["0.04"], ["1.97"]]


def test_an_executor_that_ended_does_not_count_as_consensus(tmp_path: Path) -> None:
    """Consensus waits for its executors, so the system adds their time to its own."""
    process = Process(("-c", BUSY), tmp_path / "log")
    process.start()
    until(lambda: "ended" in process.log_tail())
    found = sample(process.pid)
    assert found is not None
    assert found.ended_ms >= 300
    usage, other = Usage(), Usage()
    usage.add("consensus", process.pid)
    assert usage.cpu_ms["consensus"] < found.ended_ms
    other.add("executor", process.pid)
    assert other.cpu_ms["executor"] >= found.ended_ms
    process.kill()
    process.end_family(after_s=0)


def test_a_load_that_ended_has_used_what_it_used(tmp_path: Path) -> None:
    """Its share of the processor does not go below zero when the window ends after it."""
    process = Process(("-c", BUSY), tmp_path / "log")
    process.start()
    until(lambda: "ended" in process.log_tail())
    nothing: Any = None
    options = Options(folder=tmp_path, validators=1, duration_s=1, rate=1)
    window = _Window(options, nothing, None, nothing)
    load: Any = SimpleNamespace(pid=process.pid)
    window.load = load
    used_ms = window._load_cpu_ms()
    assert used_ms >= 300
    process.kill()
    assert sample(process.pid) is None
    assert window._load_cpu_ms() >= used_ms


@pytest.mark.parametrize(
    "arguments",
    [["--kill", "9@1s"], ["--loss", "5"], ["--validators", "0"], ["--clock-offset-ms", "1"]],
)
def test_senseless_arguments_exit_with_2(arguments: list[str], tmp_path: Path) -> None:
    """Nothing is made or started for arguments that make no sense."""
    home = tmp_path / "home"
    result = CliRunner().invoke(devnet.main, [*arguments, "--home", str(home)])
    assert result.exit_code == 2
    assert not home.exists()


def test_help_names_every_fault() -> None:
    """Both commands explain themselves."""
    text = CliRunner().invoke(devnet.main, ["--help"]).output
    for flag in ("--kill-executor", "--pause", "--partition", "--delay", "--clock-offset-ms"):
        assert flag in text
    assert CliRunner().invoke(network_rate.main, ["--help"]).exit_code == 0


@pytest.mark.parametrize("is_over", [True, False])
def test_a_load_that_died_is_no_success(tmp_path: Path, is_over: bool) -> None:
    """Blocks go on without it; one that a person interrupts is only told."""
    nothing: Any = None
    cluster: Any = SimpleNamespace(validators=[])
    options = Options(folder=tmp_path, validators=1, duration_s=1, rate=1)
    window = _Window(options, cluster, None, nothing)
    load: Any = SimpleNamespace(
        pid=os.getpid(), report=None, notes=[], is_over=is_over, failure=lambda: "killed",
        end=lambda: None,
    )  # fmt: skip
    window.load, window.start_ns, window.stop_ns = load, 1, 2
    window.end()
    texts = ["the load has no report: killed"]
    assert (window.violations, window.notes) == ((texts, []) if is_over else ([], texts))
