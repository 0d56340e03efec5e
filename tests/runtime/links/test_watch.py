"""The watch over connections: what is known of one is not forgotten while it lasts."""

import socket

from runtime.links.watch import Watch


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
