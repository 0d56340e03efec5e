"""What accepted connections cost before and beside their frames, and how one is cut.

libzmq shows a message when its last part has come and keeps the parts until then, however many;
it also keeps connections that never say anything. So a link looks at the TCP connections
themselves: what they received, what came of it, for how long they have proved nothing. Cutting
means shutting the TCP connection down, which libzmq then sees as closed by the peer.

A descriptor may be closed by libzmq and given out again at any time: nothing is done to one unless
a duplicate of it still has the two addresses that it had. Linux alone counts received bytes;
elsewhere only age and number bound what proves nothing. Spec: spec/network.md#unproved-connections.
"""

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from runtime.links.limits import UNPROVED_BYTES_MAX, UNPROVED_MS

CREDIT_BYTES = 256
"""what a delivered frame may have cost on the wire beside its own bytes"""
_BYTES_RECEIVED = struct.Struct("<Q")
_BYTES_RECEIVED_OFFSET = 128
"""of tcpi_bytes_received in Linux's tcp_info"""
_TCP_INFO_BYTES = 136


@dataclass(slots=True, kw_only=True)
class Connection:
    """A TCP connection that carries a link."""

    fd: int
    names: tuple[object, object]
    """own address and the peer's: what makes it this one"""
    since_ms: int
    """when it was accepted, or lost its proof"""
    is_proved: bool = False
    received_bytes: int = 0
    """at the last look"""
    credit_bytes: int = 0
    """of frames that came of it since the last look"""
    debt_bytes: int = 0
    """received, and nothing came of it yet"""

    def credit(self, frame_bytes: int) -> None:
        """Note a message that was delivered."""
        self.credit_bytes += frame_bytes + CREDIT_BYTES


class Watch:
    """The connections of one listening socket, by descriptor."""

    def __init__(self, *, connections_max: int, debt_bytes_max: int) -> None:
        """Hold at most so many unproved connections, and for a proved one so many bytes.

        `debt_bytes_max`: what a queue that is full holds; a proved connection from which more came
        than was delivered is cut.
        """
        self._connections_max = connections_max
        self._debt_bytes_max = debt_bytes_max
        self._connections: dict[int, Connection] = {}

    def __len__(self) -> int:
        """Return how many connections are known."""
        return len(self._connections)

    def accepted(self, fd: int, now_ms: int) -> None:
        """Note a connection that libzmq accepted, unless it has gone or is known already.

        libzmq's word of it may come after its first frames, which have proved it since.
        """
        with held(fd) as duplicate:
            if duplicate is None:
                return
            names, known = names_of(duplicate), self._connections.get(fd)
            if known is None or known.names != names:
                self._connections[fd] = Connection(fd=fd, names=names, since_ms=now_ms)

    def get(self, fd: int) -> Connection | None:
        """Return the connection with this descriptor, if it is still the same."""
        connection = self._connections.get(fd)
        return connection if connection is not None and _is_same(connection) else None

    def peek(self, fd: int) -> Connection | None:
        """Return the connection last known with this descriptor, which may have gone since."""
        return self._connections.get(fd)

    def forget(self, connection: Connection) -> None:
        """Look no more at a connection that its owner closes."""
        if self._connections.get(connection.fd) is connection:
            del self._connections[connection.fd]

    def cut(self, connection: Connection) -> None:
        """Shut a connection down."""
        self.forget(connection)
        with held(connection.fd) as duplicate:
            if duplicate is not None and names_of(duplicate) == connection.names:
                # It may have broken in this moment, which is as good.
                with contextlib.suppress(OSError):
                    duplicate.shutdown(socket.SHUT_RDWR)

    def tick(self, now_ms: int) -> dict[str, int]:
        """Cut what costs too much; return how many were cut, by reason."""
        counts: dict[str, int] = {}
        unproved: list[Connection] = []
        for connection in list(self._connections.values()):
            if not self._look(connection):
                del self._connections[connection.fd]
            elif (reason := self._fault(connection, now_ms)) is not None:
                self.cut(connection)
                counts[reason] = counts.get(reason, 0) + 1
            elif not connection.is_proved:
                unproved.append(connection)
        for connection in unproved[: max(0, len(unproved) - self._connections_max)]:
            self.cut(connection)
            counts["cut_too_many"] = counts.get("cut_too_many", 0) + 1
        return counts

    def _fault(self, connection: Connection, now_ms: int) -> str | None:
        if connection.is_proved:
            return "cut_unfinished" if connection.debt_bytes > self._debt_bytes_max else None
        if connection.debt_bytes > UNPROVED_BYTES_MAX:
            return "cut_unproved_bytes"
        return "cut_unproved" if now_ms >= connection.since_ms + UNPROVED_MS else None

    def _look(self, connection: Connection) -> bool:
        """Read what a connection received; False: it has gone."""
        with held(connection.fd) as duplicate:
            if duplicate is None or names_of(duplicate) != connection.names:
                return False
            received_bytes = bytes_received(duplicate)
        grown_bytes = received_bytes - connection.received_bytes
        # Credit is not saved up: who delivers much may not leave much unfinished later.
        left_bytes = connection.debt_bytes + grown_bytes - connection.credit_bytes
        connection.debt_bytes = max(0, left_bytes)
        connection.received_bytes = received_bytes
        connection.credit_bytes = 0
        return True


@contextlib.contextmanager
def held(fd: int) -> Iterator[socket.socket | None]:
    """Yield a socket on a duplicate of a descriptor; None: there is no connection behind it."""
    duplicate = _duplicate(fd)
    if duplicate is None:
        yield None
        return
    with duplicate:
        yield duplicate if names_of(duplicate) != (None, None) else None


def _duplicate(fd: int) -> socket.socket | None:
    try:
        copied_fd = os.dup(fd)
    except OSError:
        return None
    try:
        return socket.socket(fileno=copied_fd)
    except OSError:
        # The number stands for something else by now, a file or an event.
        os.close(copied_fd)
        return None


def names_of(connection: socket.socket) -> tuple[object, object]:
    """Return own address and the peer's; twice None when there is no connection any more."""
    try:
        return connection.getsockname(), connection.getpeername()
    except OSError:
        return None, None


def bytes_received(connection: socket.socket) -> int:
    """Return how many bytes a TCP connection has received; 0 where nobody counts them."""
    if not sys.platform.startswith("linux"):
        return 0
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    if len(info) < _TCP_INFO_BYTES:
        return 0
    received: int = _BYTES_RECEIVED.unpack_from(info, _BYTES_RECEIVED_OFFSET)[0]
    return received


def _is_same(connection: Connection) -> bool:
    with held(connection.fd) as duplicate:
        return duplicate is not None and names_of(duplicate) == connection.names
