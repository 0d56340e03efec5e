"""Authenticated links between nodes over ZeroMQ: one bound socket, one per peer that is dialled.

`Link` (`link.py`) is what callers use. Spec: spec/network.md.
"""

from runtime.links.limits import LinkLimits, SocketClass
from runtime.links.link import Link
from runtime.links.sockets import LinkError, check_address

__all__ = ["Link", "LinkError", "LinkLimits", "SocketClass", "check_address"]
