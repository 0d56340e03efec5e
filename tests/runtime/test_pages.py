"""The pages on loopback: what they answer, to whom, and what hostile clients can hold up."""

import errno
import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus

import pytest

from runtime.errors import advice_on_listening
from runtime.pages import (
    NS_PER_S,
    THREADS,
    WAITING_MAX,
    HttpError,
    Page,
    PageServer,
    text_page,
)


def broken() -> Page:
    """Return the page of a node that does not serve."""
    return text_page(HTTPStatus.SERVICE_UNAVAILABLE, "the disk is full")


def impossible() -> Page:
    """Fail to make a page."""
    raise OSError(5, "the disk is gone")


def square(text: str) -> Page:
    """Return the page of a number."""
    return text_page(HTTPStatus.OK, str(int(text) ** 2))


@pytest.fixture
def server() -> Iterator[PageServer]:
    """Return a server with one page that is well and one that is not."""
    pages = {"/healthz": lambda: text_page(HTTPStatus.OK, "ok"), "/readyz": broken}
    pages["/metrics"] = impossible
    made = PageServer("127.0.0.1:0", pages, {"/squares/": square})
    made.start()
    yield made
    made.stop()


def ask(server: PageServer, method: str, path: str) -> tuple[int, bytes]:
    """Return status and body of a request."""
    connection = http.client.HTTPConnection(server.address, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_pages_answer_with_their_status(server: PageServer) -> None:
    """A page has its own status and text; HEAD has the status alone; others do not exist."""
    assert ask(server, "GET", "/healthz") == (HTTPStatus.OK, b"ok\n")
    assert ask(server, "HEAD", "/healthz") == (HTTPStatus.OK, b"")
    assert ask(server, "GET", "/readyz") == (HTTPStatus.SERVICE_UNAVAILABLE, b"the disk is full\n")
    status, body = ask(server, "GET", "/metrics")
    assert status == HTTPStatus.INTERNAL_SERVER_ERROR
    assert b"the disk is gone" in body
    status, body = ask(server, "GET", "/other")
    assert status == HTTPStatus.NOT_FOUND
    assert b"/healthz, /readyz" in body
    assert ask(server, "POST", "/healthz")[0] == HTTPStatus.NOT_IMPLEMENTED


def test_a_page_below_a_prefix_is_given_the_rest_of_its_path(server: PageServer) -> None:
    """The last part of the path is the parameter, also an empty one; there are no deeper ones."""
    assert ask(server, "GET", "/squares/12") == (HTTPStatus.OK, b"144\n")
    assert ask(server, "GET", "/squares/x")[0] == HTTPStatus.INTERNAL_SERVER_ERROR
    assert ask(server, "GET", "/squares/")[0] == HTTPStatus.INTERNAL_SERVER_ERROR
    assert ask(server, "GET", "/squares/1/2")[0] == HTTPStatus.NOT_FOUND
    status, body = ask(server, "GET", "/squares")
    assert status == HTTPStatus.NOT_FOUND
    assert b"/squares/..." in body


def test_garbage_and_silence_do_not_stop_the_server(server: PageServer) -> None:
    """Whatever bytes come, and however many clients say nothing, the next one is answered."""
    host, _, port = server.address.rpartition(":")
    for data in (b"", b"\0\xff" * 100, b"GET " + b"a" * 100_000, b"GET /healthz HTTP/9.9\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(data)
    silent = [socket.create_connection((host, int(port))) for _ in range(THREADS - 1)]
    assert ask(server, "GET", "/healthz")[0] == HTTPStatus.OK
    for client in silent:
        client.close()


def test_more_connections_than_places_are_closed(server: PageServer) -> None:
    """Connections are held up to a bound; the one beyond it is closed without an answer."""
    host, _, port = server.address.rpartition(":")
    held = [
        socket.create_connection((host, int(port)), timeout=10)
        for _ in range(THREADS + WAITING_MAX + 1)
    ]
    assert held[-1].recv(1) == b""
    for client in held:
        client.close()


@pytest.mark.parametrize("address", ["0.0.0.0:1", "example.org:80", "127.0.0.1", "127.0.0.1:65536"])
def test_only_loopback_serves_pages(address: str) -> None:
    """The pages have no password, so they never leave the machine."""
    with pytest.raises(HttpError) as caught:
        PageServer(address, {})
    assert caught.value.code == "http.address"


def test_a_port_in_use_is_explained(server: PageServer) -> None:
    """A second server at the same port is told what is there and what to do."""
    with pytest.raises(HttpError) as caught:
        PageServer(server.address, {})
    assert caught.value.code == "http.address_in_use"
    assert server.address in str(caught.value)


def test_why_nothing_can_listen_decides_what_to_do() -> None:
    """A port in use, one that this user may not take, and a host that is another machine's."""
    found = {
        advice_on_listening(OSError(number, os.strerror(number)))
        for number in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL)
    }
    assert len(found) == 3
    assert "stop the process" in advice_on_listening(OSError(errno.EADDRINUSE, ""))


def test_who_takes_too_long_holds_no_thread() -> None:
    """Clients that send a byte now and then are never silent, and lose their connections."""
    hours_ns = [0]
    pages = {"/healthz": lambda: text_page(HTTPStatus.OK, "ok")}
    server = PageServer("127.0.0.1:0", pages, clock_ns=lambda: time.monotonic_ns() + hours_ns[0])
    place = ("127.0.0.1", server.server_port)
    server.start()
    slow = [socket.create_connection(place, timeout=10) for _ in range(THREADS)]
    is_over = threading.Event()

    def send_slowly() -> None:
        while not is_over.wait(0.1):
            for client in slow:
                with suppress(OSError):  # it has lost its connection
                    client.send(b"G")

    sender = threading.Thread(target=send_slowly)
    sender.start()
    try:
        pause = threading.Event()
        for _ in range(1_000):
            if server.running_count == THREADS:
                break
            pause.wait(0.01)
        assert server.running_count == THREADS
        hours_ns[0] = 3_600 * NS_PER_S
        assert ask(server, "GET", "/healthz") == (HTTPStatus.OK, b"ok\n")
    finally:
        is_over.set()
        sender.join()
        for client in slow:
            client.close()
        server.stop()


def test_a_slow_line_gets_a_long_page() -> None:
    """A client that takes some of an answer now and then gets all of it, however long it takes."""
    body = bytes(range(256)) * 2**16
    pages = {"/long": lambda: Page(status=HTTPStatus.OK, content_type="x/y", body=body)}
    server = PageServer("127.0.0.1:0", pages)
    server.start()
    pause = threading.Event()
    parts = []
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        client.sendall(b"GET /long HTTP/1.0\r\n\r\n")
        while part := client.recv(2**20):
            parts.append(part)
            pause.wait(0.02)
    assert b"".join(parts).endswith(b"\r\n\r\n" + body)
    server.stop()
