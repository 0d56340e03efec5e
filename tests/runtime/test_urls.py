"""What a person types as --url is host and port, or refused with a reason."""

import pytest

from runtime.urls import NodeUrl


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("http://127.0.0.1:8553", "127.0.0.1", 8553),
        ("http://127.0.0.1:8553/", "127.0.0.1", 8553),
        ("127.0.0.1:8553", "127.0.0.1", 8553),
        ("http://node.example", "node.example", 80),
        ("http://[::1]:0", "::1", 0),
    ],
)
def test_a_url_names_a_host_and_a_port(text: str, host: str, port: int) -> None:
    """The scheme may be left out, and then the port of HTTP is meant."""
    assert NodeUrl.of(text) == NodeUrl(host=host, port=port)


@pytest.mark.parametrize(
    "text",
    [
        "", "http://", "https://127.0.0.1:1", "file:///x", "http://127.0.0.1:99999",
        "http://127.0.0.1:x", "http://[::1", "http://127.0.0.1:1/v1", "http://127.0.0.1:1?a=1",
        "http://127.0.0.1:1#a", "http://user:password@127.0.0.1:1",
    ],
)  # fmt: skip
def test_what_would_not_be_used_is_refused(text: str) -> None:
    """No port beyond 65,535, no path and no password is dropped silently."""
    with pytest.raises(ValueError, match=r"[Pp]ort|Invalid|IPv6"):
        NodeUrl.of(text)
