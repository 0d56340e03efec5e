"""How long a pushed payload takes to every peer, and what it costs, on loopback.

`python -m tests.consensus.payloads.speed --bytes 20000000 --peers 3`: one process per node; the
CPU time is that of the whole process during the pushes, threads included.
"""

import multiprocessing as mp
import os
import queue
import time
from multiprocessing.connection import Connection

import click

from consensus.core.events import FetchPayload, PayloadArrived, PayloadFailed, PushPayload
from consensus.core.types import Hash32, PeerId
from consensus.payloads import Payloads
from consensus.payloads.chunks import tree_of
from runtime.keypair import KeyPair
from tests.consensus.payloads.test_service import address, make_payloads

WAIT_S = 60
NS_PER_MS = 1_000_000


def node(number: int, payload_bytes: int, curve: bool, pipe: Connection) -> None:
    """Run one node: the first pushes, the others fetch what is pushed to them."""
    events: queue.Queue[PayloadArrived | PayloadFailed] = queue.Queue()
    payloads = make_payloads(
        number, payload_bytes_max=max(payload_bytes, 2**20), events=events, curve=curve
    )
    pipe.send((KeyPair.of(bytes((number,)) * 32).public_key, payloads.payloads_address))
    members = pipe.recv()
    payloads.set_peers(members.keys(), {key: address(name) for key, name in members.items()})
    payloads.start()
    while len(payloads.connected()) < len(members) - 1:
        time.sleep(0.01)
    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        if order[0] is not None:
            payloads.hold(order[1], order[0])
            pipe.send("held")
            assert pipe.recv() == "go"
        pipe.send(serve(payloads, events, order))
    payloads.stop()


def serve(
    payloads: Payloads,
    events: queue.Queue[PayloadArrived | PayloadFailed],
    order: tuple[bytes | None, Hash32, int, bytes],
) -> tuple[int, int]:
    """Push, or fetch and wait; return (time of the end, CPU time), both in ns."""
    payload, commitment, payload_bytes, leader = order
    began = time.process_time_ns()
    if payload is not None:
        start = time.monotonic_ns()
        payloads.push(
            PushPayload(
                block_hash=commitment, payload_commitment=commitment, payload_bytes=payload_bytes
            )
        )
        while payloads.counts()["uploads"]:
            time.sleep(0.002)
        spent = time.process_time_ns() - began
        payloads.drop(commitment)
        return start, spent
    payloads.fetch(
        FetchPayload(
            block_hash=commitment,
            payload_commitment=commitment,
            payload_bytes=payload_bytes,
            peers=(PeerId(leader),),
        )
    )
    event = events.get(timeout=WAIT_S)
    assert isinstance(event, PayloadArrived), event
    end = time.monotonic_ns()
    payloads.drop(commitment)
    return end, time.process_time_ns() - began


@click.command()
@click.option("--bytes", "payload_bytes", default=20_000_000, show_default=True)
@click.option("--peers", default=3, show_default=True)
@click.option("--rounds", default=10, show_default=True)
@click.option("--curve", is_flag=True, help="Encrypt, as between machines.")
def main(payload_bytes: int, peers: int, rounds: int, curve: bool) -> None:
    """Measure."""
    spawn = mp.get_context("spawn")
    pipes, processes = [], []
    for number in range(1, peers + 2):
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=node, args=(number, payload_bytes, curve, theirs))
        process.start()
        pipes.append(ours)
        processes.append(process)
    members = dict(pipe.recv() for pipe in pipes)
    for pipe in pipes:
        pipe.send(members)
    for pipe in pipes:
        assert pipe.recv() == "ready"
    leader = next(iter(members))
    click.echo("round  ms to all  MB/s in all  CPU ms: leader, receivers")
    for number in range(rounds):
        payload = os.urandom(payload_bytes)
        commitment = tree_of(payload).commitment
        pipes[0].send((payload, commitment, payload_bytes, leader))
        assert pipes[0].recv() == "held"
        for pipe in pipes[1:]:
            pipe.send((None, commitment, payload_bytes, leader))
        pipes[0].send("go")
        (start, leader_ns), *ends = [pipe.recv() for pipe in pipes]
        us = (max(end for end, _ in ends) - start) // 1000
        cpu = ", ".join(f"{ns // NS_PER_MS}" for ns in (leader_ns, *(n for _, n in ends)))
        click.echo(f"{number:5}  {us // 1000:9}  {payload_bytes * peers // us:11}  {cpu}")
    for pipe in pipes:
        pipe.send(None)
    for process in processes:
        process.join(WAIT_S)


if __name__ == "__main__":
    main()
