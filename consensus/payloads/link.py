"""The socket of payloads and its limits. Spec: spec/network.md, spec/dissemination.md#limits."""

import zmq

from consensus.payloads import limits
from consensus.payloads.frames import frame_bytes_max
from runtime.keypair import KeyPair
from runtime.links import Link, LinkLimits, SocketClass


def open_link(
    *,
    context: "zmq.Context[zmq.Socket[bytes]]",
    pair: KeyPair,
    domain: bytes,
    bind: str,
    payload_bytes_max: int,
    now_ms: int,
    curve: bool,
) -> Link:
    """Bind the socket of payloads; `curve`: encrypt on loopback, too. Raises LinkError."""
    return Link(
        context=context,
        pair=pair,
        domain=domain,
        socket_class=SocketClass.PAYLOADS,
        bind=bind,
        limits=LinkLimits(
            frame_bytes_max=frame_bytes_max(payload_bytes_max) + limits.LINK_ENVELOPE_BYTES,
            queue_frames=limits.LINK_QUEUE_FRAMES,
            peers_max=limits.LINK_PEERS_MAX,
            member_bytes_per_s=limits.MEMBER_RECEIVED_BYTES_PER_S,
            member_burst_bytes=limits.MEMBER_RECEIVED_BURST_BYTES,
            stranger_bytes_per_s=limits.STRANGER_RECEIVED_BYTES_PER_S,
            stranger_burst_bytes=limits.STRANGER_RECEIVED_BURST_BYTES,
        ),
        now_ms=now_ms,
        curve=curve,
    )
