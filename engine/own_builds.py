"""Payloads that were built here: recognised when they come back in a header, not executed again.

Spec: spec/engine_api.md#newpayload.
"""

from collections import OrderedDict
from dataclasses import dataclass

from engine.header import Header
from engine.transition import Outcome
from engine_api.types import PayloadRequest

OWN_BUILDS_MAX = 4
"""The newest ones; each holds a payload and its results."""

BuildKey = tuple[bytes, int, bytes, int, bytes]
"""(parent_hash, height, payload_commitment, timestamp_ms, fee_recipient)"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OwnBuild:
    """A payload with what it comes to on its parent."""

    payload: bytes
    payload_commitment: bytes
    outcome: Outcome


def key_of_request(request: PayloadRequest, payload_commitment: bytes) -> BuildKey:
    """Return by what a build is recognised."""
    attributes = request.attributes
    return (
        bytes(request.parent_hash),
        request.height,
        payload_commitment,
        attributes.timestamp_ms,
        bytes(attributes.fee_recipient),
    )


def key_of_header(fields: Header) -> BuildKey:
    """Return the same of a header."""
    return (
        fields.parent_hash,
        fields.height,
        fields.payload_commitment,
        fields.timestamp_ms,
        fields.fee_recipient,
    )


class OwnBuilds:
    """The newest builds."""

    def __init__(self) -> None:
        """Start without any."""
        self._builds: OrderedDict[BuildKey, OwnBuild] = OrderedDict()

    def __len__(self) -> int:
        """Count the builds."""
        return len(self._builds)

    def keep(self, key: BuildKey, build: OwnBuild) -> None:
        """Keep a build; the oldest beyond OWN_BUILDS_MAX is forgotten."""
        self._builds[key] = build
        self._builds.move_to_end(key)
        if len(self._builds) > OWN_BUILDS_MAX:
            self._builds.popitem(last=False)

    def find(self, fields: Header) -> OwnBuild | None:
        """Return the build that a header is about, or None."""
        return self._builds.get(key_of_header(fields))

    def payload(self, fields: Header) -> bytes | None:
        """Return the payload of any build that has a header's commitment and length."""
        for build in self._builds.values():
            is_same = build.payload_commitment == fields.payload_commitment
            if is_same and len(build.payload) == fields.payload_bytes:
                return build.payload
        return None

    def forget(self, fields: Header) -> None:
        """Forget a build whose header turned out INVALID."""
        self._builds.pop(key_of_header(fields), None)

    def drop_final(self, finalized_height: int) -> None:
        """Forget builds at heights that are final now."""
        for key in [key for key in self._builds if key[1] <= finalized_height]:
            del self._builds[key]
