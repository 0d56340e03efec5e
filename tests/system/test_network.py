"""Real validators with real executors on loopback: blocks, kills, restarts, one chain."""

import json
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from consensus.core.journal import replay
from consensus.journal import read_journal
from tests.system.networks import Cluster, Validator, free_base_port

MakeCluster = Callable[..., Cluster]


@pytest.fixture
def make_cluster(tmp_path: Path, seed: int) -> Iterator[MakeCluster]:
    """Return a way to make a network; its processes are ended with the test."""
    made: list[Cluster] = []

    def one(count: int, *flags: str) -> Cluster:
        made.append(Cluster(tmp_path, count, random.Random(seed), flags))
        return made[-1]

    yield one
    for cluster in made:
        cluster.end()


def test_four_validators_survive_the_loss_of_one_and_of_an_executor(
    make_cluster: MakeCluster,
) -> None:
    """Blocks go on without a killed node; it catches up; a killed executor comes back by itself."""
    cluster = make_cluster(4)
    first, *_, last = cluster.validators
    cluster.start()
    cluster.reach(2)
    last.kill()
    rest = cluster.validators[:3]
    cluster.reach(max(one.height for one in rest) + 2, rest)
    first.kill_executor()
    last.start()
    cluster.reach(first.height + 3)
    cluster.wait(
        "the executor that was killed follows again",
        lambda: first.status()["executor"]["finalized_height"] >= rest[1].height - 2,
    )
    assert {name: first.status()["executor"][name] for name in ("restarts", "hangs")} == {
        "restarts": 1,
        "hangs": 0,
    }
    assert cluster.check_equal() >= 5
    cluster.check_honest()
    assert [one.stop() for one in cluster.validators] == [0, 0, 0, 0]


@pytest.mark.slow
def test_all_killed_at_once_go_on_where_they_were(make_cluster: MakeCluster) -> None:
    """Nothing that was final anywhere is lost when every process dies at one instant, thrice."""
    cluster = make_cluster(4)
    for _ in range(3):
        cluster.start()
        cluster.reach(max(one.height for one in cluster.validators) + 3)
        final = {one.name: one.page(f"/headers/{one.height}") for one in cluster.validators}
        for one in cluster.validators:
            one.kill()
        cluster.start()
        highest = max(page["height"] for page in final.values())
        cluster.reach(highest + 2)
        for name, page in final.items():
            for one in cluster.validators:
                assert one.page(f"/headers/{page['height']}") == page, name
    cluster.check_equal()
    cluster.check_honest()


@pytest.mark.slow
def test_two_killed_of_four_stop_the_chain_and_fork_nothing(make_cluster: MakeCluster) -> None:
    """Without a quorum no height is added; with one of the two back the chain goes on."""
    cluster = make_cluster(4)
    cluster.start()
    cluster.reach(3)
    for one in cluster.validators[2:]:
        one.kill()
    rest = cluster.validators[:2]
    views = [one.status()["view"] for one in rest]
    stuck = max(one.height for one in rest) + 1
    time.sleep(5)  # ten block intervals and retransmissions
    assert all(one.height <= stuck for one in rest)
    assert all(one.status()["view"] <= view + 1 for one, view in zip(rest, views, strict=True))
    cluster.validators[2].start()
    cluster.reach(stuck + 3, cluster.validators[:3])
    cluster.validators[3].start()
    cluster.reach(stuck + 6)
    cluster.check_equal()
    cluster.check_honest()


@pytest.mark.slow
def test_epochs_go_on_over_restarts(make_cluster: MakeCluster) -> None:
    """Epochs of five heights begin one after another while nodes are killed in turn."""
    cluster = make_cluster(4, "--epoch-heights", "5")
    cluster.start()
    cluster.reach(4)
    for turn in range(4):
        one = cluster.validators[turn]
        one.kill()
        rest = [other for other in cluster.validators if other is not one]
        cluster.reach(max(other.height for other in rest) + 6, rest)
        one.start()
        cluster.reach(max(other.height for other in rest))
    assert min(one.status()["epoch"] for one in cluster.validators) >= 4
    cluster.check_equal()
    cluster.check_honest()


@pytest.mark.slow
def test_one_validator_leaves_and_another_joins(make_cluster: MakeCluster, tmp_path: Path) -> None:
    """By the schedule of genesis one leaves at epoch 2 and one joins that followed until then."""
    names = [f"validator{n}" for n in range(5)]
    schedule = tmp_path / "schedule.json"
    later = [names[0], names[1], names[2], names[4]]
    schedule.write_text(json.dumps([{"epoch": 2, "validators": later}]))
    cluster = make_cluster(4, "--epoch-heights", "5", "--schedule", str(schedule))
    assert [one.name for one in cluster.validators] == names
    leaver, joiner = cluster.validators[3], cluster.validators[4]
    for one in cluster.validators[:4]:
        one.start()
    cluster.reach(8, cluster.validators[:4])
    joiner.start()
    cluster.reach(27)
    keys = {one.name: one.status()["key"] for one in cluster.validators}
    for one in cluster.validators:
        page = one.page("/validators")
        assert {item["key"] for item in page["validators"]} == {keys[name] for name in later}
        assert one.status()["is_member"] == (one.name != leaver.name)
    proposers = [joiner.page(f"/headers/{height}")["header"]["proposer"] for height in range(1, 28)]
    assert keys[joiner.name] not in proposers[:10]
    assert keys[leaver.name] not in proposers[10:]
    place = sorted(keys[name] for name in later).index(keys[joiner.name])
    signed = [
        place in joiner.page(f"/certificates/{height}")["certificate"]["signers"]
        for height in range(11, 28)
    ]
    assert any(signed)
    cluster.check_equal()
    cluster.check_honest()


@pytest.mark.slow
def test_one_key_on_two_machines_signs_nothing_twice(make_cluster: MakeCluster) -> None:
    """A copy of a home is not heard beside it; what the two of them signed would convict nobody.

    Where both are heard (a partition), their votes are evidence: the simulator's twins show that.
    """
    cluster = make_cluster(4)
    others, original = cluster.validators[:3], cluster.validators[3]
    cluster.start()
    cluster.reach(3)
    original.kill()
    twin = copy_of(original)
    cluster.validators.append(twin)
    original.start()
    cluster.reach(others[0].height + 3, [*others, original])
    twin.start()
    cluster.wait("the copy runs", lambda: bool(twin.status()))
    before = twin.height
    cluster.reach(others[0].height + 6, [*others, original])
    assert twin.height == before
    original.kill()
    running = [*others, twin]
    cluster.reach(others[0].height + 3, running)
    signed = [
        {(vote.kind, vote.epoch, vote.view, vote.pid) for vote in replay(journal).votes}
        for journal in (read_journal(one.home / "journal").records for one in (original, twin))
    ]
    both = {vote[:3] for vote in signed[0]} & {vote[:3] for vote in signed[1]}
    assert both <= {vote[:3] for vote in signed[0] & signed[1]}
    assert all(one.page("/evidence") == {"evidence": []} for one in running)
    cluster.validators = running
    cluster.check_equal()


def copy_of(original: Validator) -> Validator:
    """Copy the home of a validator that does not run, with addresses of its own."""
    home = original.home.with_name("twin")
    shutil.copytree(original.home, home, ignore=shutil.ignore_patterns("run"))
    executor = home / "executor" / "node.toml"
    text = executor.read_text()
    for name in ("http_address", "query_address"):
        text = re.sub(f"^{name} = .*$", f'{name} = "127.0.0.1:0"', text, flags=re.MULTILINE)
    executor.write_text(re.sub("^gossip_listen = .*$", "", text, flags=re.MULTILINE))
    base_port = free_base_port(1, random.Random(original.name))
    listen = [f"tcp://127.0.0.1:{base_port + n}" for n in range(3)]
    pages = f"127.0.0.1:{base_port + 3}"
    return Validator(
        name="twin",
        home=home,
        url=f"http://{pages}",
        settings=(
            "--listen-votes", listen[0], "--listen-sync", listen[1], "--listen-payloads", listen[2],
            "--http-address", pages,
        ),
    )  # fmt: skip
