"""Where a node's pages are: host and port of what a person types as --url."""

from dataclasses import dataclass
from urllib.parse import urlsplit

HTTP_PORT = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUrl:
    """Host (a name or a number, an IPv6 one without brackets) and port of a node."""

    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> "NodeUrl":
        """Return what a text says, `http://` before it or not; raises ValueError with the reason.

        A node is asked at paths of its own and without a password: what else an URL may hold is
        refused, since nobody would send it.
        """
        parts = urlsplit(text if "//" in text else f"http://{text}")
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError("it is not http://, a host and a port")
        if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError("only http://, a host and a port are used")
        port = HTTP_PORT if parts.port is None else parts.port  # ValueError beyond 65,535
        return cls(host=parts.hostname, port=port)
