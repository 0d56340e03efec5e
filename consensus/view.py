"""What a node tells about itself, as JSON holds it; the pages and commands are made of it.

All of it may be called from any thread: it reads the store, and values that the loop publishes.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from consensus.core import codec
from consensus.core.types import Certificate, Evidence, Header, Kind, Validator, Vote
from consensus.inbox import Inbox
from consensus.node import Node
from consensus.ports import Network, PayloadTransfer


class View:
    """Answers questions about one node."""

    def __init__(
        self,
        node: Node,
        *,
        inbox: Inbox,
        network: Network,
        payloads: PayloadTransfer,
        names: Mapping[bytes, str],
    ) -> None:
        """Watch a node; `names`: what people call the configured peers, by key."""
        self._node, self._inbox = node, inbox
        self._network, self._payloads, self._names = network, payloads, names
        node.metrics.watch(self._gauges)

    def status(self) -> Mapping[str, Any]:
        """Return the state of the moment."""
        node, standing = self._node, self._node.standing
        durable, calls = node.durable, node.calls
        chain = node.chain
        return {
            "chain_id": chain.chain_id,
            "genesis_hash": chain.genesis_hash.hex(),
            "key": (node.key or b"").hex(),
            "role": node.role,
            "is_member": node.is_member,
            "is_halted": standing.is_halted,
            "epoch": standing.epoch,
            "view": standing.view,
            "finalized": {
                "height": 0 if durable is None else durable.header.height,
                "hash": (chain.genesis_hash if durable is None else durable.block_hash).hex(),
                "timestamp_ms": (
                    chain.timestamp_ms if durable is None else durable.header.timestamp_ms
                ),
            },
            "executor": {
                "is_connected": calls.is_connected,
                "boot_id": (calls.boot_id or b"").hex(),
                "finalized_height": self._executor_height(),
            },
            "peers": self._peers(),
            "queues": self._queues(),
            "drops": self._drops(),
            "held": dict(standing.held),
            "view_changes": node.meter.view_changes,
            "missed_votes": node.meter.missed_votes,
            "stage_ms": node.meter.stage_ms(),
            "pid": os.getpid(),
        }

    def not_ready(self) -> str:
        """Return why the node does not take part at this moment; empty when it does."""
        node, standing = self._node, self._node.standing
        if node.failure:
            return node.failure
        if standing.is_halted:
            return "a quorum certified a block that is invalid here"
        if not node.calls.is_connected:
            return "the executor does not answer"
        is_alone = len(standing.validators) == 1
        if node.is_member and not is_alone and not self._network.connected():
            return "no other validator is connected"
        return ""

    def header(self, height: int) -> Mapping[str, Any] | None:
        """Return a final header."""
        block = self._node.store.block(height)
        if block is None:
            return None
        return {
            "height": height,
            "hash": block.block_hash.hex(),
            "header": header_json(block.header),
        }

    def certificate(self, height: int) -> Mapping[str, Any] | None:
        """Return what makes a height final."""
        found = self._node.store.certificate(height)
        if found is None:
            return None
        proposal = found.certificate.proposal
        assert proposal is not None, "a finalization names a proposal"
        return {
            "height": found.header.height,
            "hash": proposal.block_hash.hex(),
            "certificate": certificate_json(found.certificate),
            "bytes": codec.encode_certificate(found.certificate).hex(),
        }

    def validators(self) -> Mapping[str, Any]:
        """Return the sets of this epoch and the next."""
        standing = self._node.standing
        return {
            "epoch": standing.epoch,
            "validators": [self._validator(one) for one in standing.validators],
            "next_validators": [self._validator(one) for one in standing.next_validators],
        }

    def evidence(self) -> Sequence[Mapping[str, Any]]:
        """Return what is proven against validators."""
        return [self._evidence(item) for item in self._node.store.evidence()]

    def metrics(self) -> bytes:
        """Return the page of the metrics."""
        return self._node.metrics.page()

    # --- parts ----------------------------------------------------------------------------------

    def _validator(self, one: Validator) -> dict[str, Any]:
        name = self._names.get(one.public_key, "")
        return {"key": one.public_key.hex(), "power": one.power, "name": name}

    def _evidence(self, item: Evidence) -> dict[str, Any]:
        """The signer's key is known while its epoch's set is: boundaries are kept for ever."""
        epoch, signer = item.first.epoch, item.first.signer
        boundary = self._node.store.boundary(epoch)
        genesis = self._node.chain.validators[0]
        validators = genesis if epoch == 0 else () if boundary is None else boundary.validators
        key = validators[signer].public_key.hex() if signer < len(validators) else ""
        return {
            "key": key,
            "signer": signer,
            "epoch": epoch,
            "view": item.first.view,
            "offence": f"{item.first.kind.name} and {item.second.kind.name}",
            "votes": [vote_json(item.first), vote_json(item.second)],
        }

    def _executor_height(self) -> int:
        """Return the height that the executor has finalized, 0 while it has not said."""
        named = self._node.calls.finalized_hash
        return 0 if named is None else self._node.store.height_of(named) or 0

    def _peers(self) -> list[dict[str, Any]]:
        standing = self._node.standing
        members = {one.public_key for one in (*standing.validators, *standing.next_validators)}
        keys = ({*members, *self._names}) - {self._node.key}
        links, payloads = self._network.connected_by_link(), self._payloads.connected()
        return [
            {
                "name": self._names.get(key, ""),
                "key": key.hex(),
                "votes": key in links["votes"],
                "sync": key in links["sync"],
                "payloads": key in payloads,
            }
            for key in sorted(keys)
        ]

    def _queues(self) -> dict[str, int]:
        node = self._node
        return {"inbox": len(self._inbox), "disk": len(node.disk), "calls": len(node.calls)}

    def _drops(self) -> dict[str, int]:
        """Return what was dropped, by reason: the network's, the payloads', the node's own."""
        drops = {"inbox_full": self._inbox.refused_count}
        drops["store_answers"] = self._node.disk.answers.refused_count
        drops["core_limits"] = self._node.standing.held["refused"]
        for source, counts in (
            ("messages", self._network.counts()),
            ("payloads", self._payloads.counts()),
        ):
            for name, count in counts.items():
                if "dropped" in name or "refused" in name:
                    drops[f"{source}_{name}"] = count
        return drops

    def _gauges(self) -> Mapping[str, int | Mapping[str, int]]:
        status = self.status()
        return {
            "finalized_height": status["finalized"]["height"],
            "executor_finalized_height": status["executor"]["finalized_height"],
            "executor_connected": int(status["executor"]["is_connected"]),
            "epoch": status["epoch"],
            "view": status["view"],
            "halted": int(status["is_halted"]),
            "observer": int(status["role"] == "observer"),
            "peers_connected": sum(peer["votes"] for peer in status["peers"]),
            "queue_length": status["queues"],
            "dropped": status["drops"],
            "held": status["held"],
            "messages": dict(self._network.counts()),
            "payloads": dict(self._payloads.counts()),
        }


def header_json(header: Header) -> dict[str, Any]:
    """Return a header with its bytes as hex digits."""
    values = ((name, getattr(header, name)) for name in Header.__dataclass_fields__)
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in values}


def vote_json(vote: Vote) -> dict[str, Any]:
    """Return a vote."""
    return {
        "kind": vote.kind.name,
        "epoch": vote.epoch,
        "view": vote.view,
        "pid": vote.pid.hex(),
        "signer": vote.signer,
        "signature": vote.signature.hex(),
    }


def certificate_json(certificate: Certificate) -> dict[str, Any]:
    """Return a certificate of a proposal."""
    proposal = certificate.proposal
    return {
        "kind": Kind(certificate.kind).name,
        "epoch": certificate.epoch,
        "view": certificate.view,
        "parent_view": 0 if proposal is None else proposal.parent_view,
        "block_hash": "" if proposal is None else proposal.block_hash.hex(),
        "validator_count": certificate.validator_count,
        "signers": [
            index
            for index in range(certificate.validator_count)
            if certificate.signers >> index & 1
        ],
        "signatures": [signature.hex() for signature in certificate.signatures],
    }
