"""What server and client agree on below the messages: method paths, limits, errors, addresses.

An address is `unix:` and an absolute path, or HOST:PORT with a loopback host. Every error of the
contract has a gRPC status of its own, so that a client which does not read the trailing metadata
still knows the code. Spec: spec/engine_api.md#transport.
"""

import ipaddress
import os
import socket
import stat
from pathlib import Path

import grpc

from engine_api.chunks import MESSAGE_BYTES_MAX
from engine_api.tos import engine_pb2 as pb
from engine_api.types import ErrorCode, SetupError

SERVICE = pb.DESCRIPTOR.services_by_name["ExecutionEngine"].full_name
ERROR_KEY = "tos-error-bin"
"""trailing metadata: a serialized Error"""

UNIX = "unix:"
UNIX_PATH_BYTES_MAX = 107
"""what a Unix address holds"""
PORT_MAX = 65_535
PORT_DIGITS_MAX = 5
MS_PER_S = 1_000

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
)

STATUSES = {
    ErrorCode.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.UNSUPPORTED: grpc.StatusCode.UNIMPLEMENTED,
    ErrorCode.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.PAYLOAD_NOT_HELD: grpc.StatusCode.NOT_FOUND,
    ErrorCode.DEPTH_EXCEEDED: grpc.StatusCode.OUT_OF_RANGE,
    ErrorCode.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorCode.RESOURCE_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.INTERNAL: grpc.StatusCode.INTERNAL,
    ErrorCode.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    ErrorCode.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}
CODES = {status: code for code, status in STATUSES.items()} | {
    # A server that stops cancels what runs.
    grpc.StatusCode.CANCELLED: ErrorCode.UNAVAILABLE,
}
assert len(set(STATUSES.values())) == len(ErrorCode)


def method_path(name: str) -> str:
    """Return where a method of the service is found."""
    return f"/{SERVICE}/{name}"


def check_address(address: str) -> None:
    """Raise SetupError unless this is a Unix path or a loopback host with a port."""
    if address.startswith(UNIX):
        path = address[len(UNIX) :]
        if not path.startswith("/") or len(os.fsencode(path)) > UNIX_PATH_BYTES_MAX:
            raise SetupError(
                "engine_api.address_path",
                what="this is no address of a Unix socket",
                where=address,
                why=f"after `{UNIX}` comes an absolute path of at most {UNIX_PATH_BYTES_MAX} bytes",
                what_to_do="choose a folder with a shorter path",
            )
        return
    place = split_host_port(address)
    if place is None or not is_loopback(place[0]):
        raise SetupError(
            "engine_api.address_host",
            what="the Engine API cannot be here",
            where=address,
            why=f"it is a Unix socket (`{UNIX}` and a path) or a loopback address and a port; it "
            "never leaves this machine",
            what_to_do="write for example 127.0.0.1:8551 or [::1]:8551, or a path",
        )


def split_host_port(address: str) -> tuple[str, int] | None:
    """Return host, an IPv6 one without its brackets, and port of HOST:PORT; None if it is none."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or len(port) > PORT_DIGITS_MAX:
        return None
    if int(port) > PORT_MAX:
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Say whether a numeric host, without brackets, is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def prepare_folder(path: Path) -> None:
    """Make the folder of a socket for its owner alone; refuse one that others could enter.

    Raises SetupError, also where somebody answers at the socket: two executors never share one. A
    socket that nobody answers at was left by a process that died, and is taken over.
    """
    folder = path.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077 or status.st_uid != os.geteuid():
        raise SetupError(
            "engine_api.socket_folder",
            what="others may enter the folder of this socket",
            where=str(folder),
            why=f"it has mode {stat.S_IMODE(status.st_mode):04o} and owner {status.st_uid}; it has "
            f"to be a folder of the user {os.geteuid()} with mode 0700",
            what_to_do="choose one for sockets alone; one that does not exist yet is made so",
        )
    if path.exists() and not path.is_socket():
        raise SetupError(
            "engine_api.socket_file",
            what="there is a file in the place of the socket",
            where=str(path),
            why="it is no socket, so nobody knows what is lost with it",
            what_to_do="move it away, or choose another path",
        )
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise SetupError(
                "engine_api.socket_in_use",
                what="another process answers at this socket",
                where=str(path),
                why="two executors never share one",
                what_to_do="stop it, or choose another socket",
            )


def check_port(address: str) -> None:
    """Raise SetupError unless this process may listen at a TCP address.

    gRPC would say so itself, but in a line of its own on stderr, and without the reason.
    """
    place = split_host_port(address)
    assert place is not None, "see check_address"
    try:
        with socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        raise cannot_listen(address, error.strerror or str(error)) from error


def cannot_listen(address: str, why: str) -> SetupError:
    """Return the error of an address at which nothing can listen."""
    return SetupError(
        "engine_api.address_in_use",
        what="the Engine API cannot listen",
        where=address,
        why=why,
        what_to_do="stop the process that listens there, or choose another address",
    )
