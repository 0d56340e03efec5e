"""The watch over connections: what is known of one is not forgotten while it lasts."""

import os
import socket
from pathlib import Path

from runtime.links.watch import Watch, held


def test_word_of_a_connection_that_comes_late_changes_nothing() -> None:
    """A connection that was proved before libzmq told of it stays proved; a new one is not."""
    watch = Watch(connections_max=4, debt_bytes_max=2**20)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()):
            accepted, _ = server.accept()
            fd = accepted.fileno()
            watch.accepted(fd, 1)
            known = watch.get(fd)
            assert known is not None
            known.is_proved = True
            watch.accepted(fd, 2)
            assert watch.get(fd) is known
            accepted.close()
        with socket.create_connection(server.getsockname()):
            again, _ = server.accept()
            assert again.fileno() == fd, "the system gives the lowest number"
            watch.accepted(fd, 3)
            other = watch.get(fd)
            assert other is not None
            assert other is not known
            assert not other.is_proved
            again.close()


def test_a_number_that_stands_for_something_else_costs_nothing() -> None:
    """A look at a descriptor that is a file by now finds nothing, and keeps no copy of it."""
    read_fd, write_fd = os.pipe()
    before = sorted(Path("/proc/self/fd").iterdir())
    for _ in range(50):
        with held(read_fd) as duplicate:
            assert duplicate is None
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    os.close(read_fd)
    os.close(write_fd)
    with held(read_fd) as duplicate:
        assert duplicate is None
