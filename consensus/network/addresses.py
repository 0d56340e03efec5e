"""Where a peer listens."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAddresses:
    """The sockets of one node, as `tcp://host:port`."""

    votes: str
    sync: str
    payloads: str
