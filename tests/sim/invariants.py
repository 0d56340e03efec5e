"""I1 to I10, checked at the events that can break them; `liveness` has the rest.

Votes of honest nodes are tallied by what the adversary could make of them: its own power is added
to every tally, so a certificate that *could* be formed counts as formed. That is sound below one
third of faulty power and finds a crime at the vote that commits it.
"""

from typing import TYPE_CHECKING

from consensus.core.events import (
    Alarm,
    AlarmCode,
    Answer,
    ForkchoiceUpdated,
    NewPayload,
    Penalize,
)
from consensus.core.types import (
    Certificate,
    Final,
    FinalizedBlock,
    Header,
    Kind,
    Message,
    Proposal,
    Propose,
    RangeAnswer,
    Vote,
)
from tests.sim import ledger
from tests.sim.arithmetic import Arithmetic, execute_serially
from tests.sim.evidence import EvidenceChecks
from tests.sim.liveness import Liveness
from tests.sim.scenario import DRIFT_MS
from tests.sim.violation import MEMORY, Violation

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.world import World

HELD_EVERY = 64
HELD_MAX = {
    "views": (512, 0),
    "blocks": (256, 0),
    "ahead": (0, 1),
    "final_queue": (128, 0),
    "unjournalled": (512, 0),
    "epochs": (16, 0),
    "evidence": (0, 256),
    "answered": (0, 1),
    "request_counts": (0, 1),
    "asked_peers": (0, 1),
    "asked_blocks": (64, 0),
    "open_calls": (5, 0),
}
"""table of a replica -> entries, and entries for each node of the world"""

View = tuple[int, int]
"""(epoch, view)"""


class Checks:
    """The judge of one world. Methods raise Violation."""

    def __init__(self, world: "World") -> None:
        """Nothing has happened."""
        self.world = world
        self.arithmetic = Arithmetic(world)
        self.liveness = Liveness(world, self.arithmetic)
        self.evidence = EvidenceChecks(world, self)
        genesis = world.chain.genesis_hash
        self.proposed_ms: dict[bytes, int] = {}
        """block -> when an honest leader first sent it"""
        self.final_ms: dict[bytes, list[int]] = {}
        """block -> when honest nodes finalized it, one entry for each"""
        self.headers: dict[bytes, Header] = {}
        self.proposals: dict[bytes, Proposal] = {}
        self.final: list[bytes] = [genesis]
        """by height, as the first honest node finalized it"""
        self.balances = list(ledger.OPENING_STATE)
        self.height_of: dict[int, int] = {}
        """host -> highest height it has finalized"""
        self._votes: dict[tuple[int, int, int], list[bytes | None]] = {}
        """(node, epoch, view) -> pid per kind, of honest nodes, for ever"""
        self._tally: dict[tuple[Kind, int, int, bytes], int] = {}
        self._certified: dict[Kind, dict[View, bytes]] = {kind: {} for kind in Kind}
        """what the adversary could certify: view -> pid"""
        self._own: dict[int, dict[View, Proposal]] = {}
        self._sent: dict[int, set[bytes]] = {}
        """host -> signatures that were checked in this life"""
        self._known: dict[int, dict[View, list[Certificate]]] = {}
        """host -> valid certificates it has seen in this life"""
        self._finalized_at: dict[int, int] = {}
        """host -> finalized height that its executor was told last"""
        self._counter = 0

    def fail(self, invariant: str, text: str) -> None:
        """Raise Violation."""
        raise Violation(invariant, self.world.scenario.seed, self.world.now_ms, text)

    # --- life ---------------------------------------------------------------------------------

    def started(self, node: "Node") -> None:
        """Begin a life of a node."""
        self.height_of.setdefault(node.host, 0)
        self._sent[node.host] = set()
        self._known[node.host] = {}
        self.evidence.forget(node)
        self.liveness.started(node)

    def crashed(self, node: "Node") -> None:
        """I10: what is notarized is still on an honest disk, whoever lost power."""
        self.evidence.forget(node)
        for view, pid in list(self._certified[Kind.NOTARIZE].items())[-8:]:
            self._check_stored(view, pid)

    def healed(self) -> None:
        """From here on liveness counts."""
        self.liveness.healed()

    def ended(self) -> None:
        """Check what holds only over a whole run."""
        self.liveness.ended()

    # --- what honest nodes send ---------------------------------------------------------------

    def sent(self, node: "Node", message: Message, count: int) -> None:
        """See a message leave an honest node."""
        self.liveness.sent(count)
        kind = type(message)
        if kind is Vote:
            self._vote(node, message)  # type: ignore[arg-type]
        elif kind is Certificate:
            self._certificate(node, message)  # type: ignore[arg-type]
        elif isinstance(message, Propose):
            self.learn(message)
            self._propose(node, message)
        elif isinstance(message, Final | RangeAnswer):
            self._certificate(node, message.certificate)

    def learn(self, message: Propose) -> None:
        """Remember a proposal and its block by names computed here."""
        self.headers.setdefault(self.arithmetic.block_hash(message.header), message.header)
        self.proposals.setdefault(self.arithmetic.proposal_id(message.proposal), message.proposal)

    def _propose(self, node: "Node", message: Propose) -> None:
        facts = self.arithmetic.epoch(message.proposal.epoch)
        if facts.nodes[message.vote.signer] == node.index:
            view = (message.proposal.epoch, message.proposal.view)
            first = self._own.setdefault(node.index, {}).setdefault(view, message.proposal)
            if first != message.proposal:
                self.fail("I4", f"node {node.index} made two proposals for view {view}")
            self.proposed_ms.setdefault(first.block_hash, self.world.now_ms)
            self._vote(node, message.vote)

    def _vote(self, node: "Node", vote: Vote) -> None:
        sent = self._sent[node.host]
        if vote.signature in sent:
            return
        sent.add(vote.signature)
        facts = self.arithmetic.epoch(vote.epoch)
        if vote.signer >= len(facts.nodes) or facts.nodes[vote.signer] != node.index:
            return  # somebody else's vote, sent on
        where = f"{vote.kind.name} of node {node.index} in view {vote.epoch}/{vote.view}"
        if not self.arithmetic.is_signed(vote):
            self.fail("I8", f"{where}: signed bytes are not those of the specification")
        own = self._votes.setdefault((node.index, vote.epoch, vote.view), [None] * 4)
        if own[vote.kind] not in (None, vote.pid):
            self.fail("I4", f"{where}: a second one for another proposal")
        is_new = own[vote.kind] is None
        own[vote.kind] = vote.pid
        if own[Kind.NULLIFY] is not None and own[Kind.FINALIZE] is not None:
            self.fail("I4", f"{where}: both NULLIFY and FINALIZE")
        self._check_durable(node, vote, where, is_new)
        if not is_new:
            return
        self.liveness.voted(vote.epoch, vote.view)
        key = (vote.kind, vote.epoch, vote.view, vote.pid)
        power = self._tally.get(key, 0) + facts.powers[vote.signer]
        self._tally[key] = power
        if facts.is_quorum(power + facts.faulty):
            self._certifiable((vote.epoch, vote.view), vote.kind, vote.pid)

    def _check_durable(self, node: "Node", vote: Vote, where: str, is_new: bool) -> None:
        """I5 (W1): the vote and the way into its view are on disk; I10: so is the payload."""
        if self.liveness.is_final_at(node, vote.epoch, vote.view):
            return  # finality is on disk: nothing more will be signed where the vote stands
        durable = node.journal.durable
        if durable.find(vote.signature) < 0:
            self.fail("I5", f"{where} left before it was durable")
        entered = self._known[node.host].get((vote.epoch, vote.view - 1))
        if (
            entered
            and is_new
            and vote.kind != Kind.FINALIZE
            and not self.liveness.is_final_at(node, vote.epoch, vote.view - 1)
            and all(durable.find(certificate.signatures[0]) < 0 for certificate in entered)
        ):
            self.fail("I5", f"{where} left before the certificate that entered it was durable")
        if vote.kind == Kind.NOTARIZE:
            proposal = self.proposals.get(vote.pid)
            if proposal is None:
                self.fail("I10", f"{where}: nobody has seen the proposal")
            elif not self._is_stored(node, proposal.block_hash):
                self.fail("I10", f"{where}: the payload is not durable there")
            elif is_new:
                self._check_clock(node, proposal, where)

    def _check_clock(self, node: "Node", proposal: Proposal, where: str) -> None:
        """I6: the time of a block that gets a vote is not further ahead than drift allows.

        Only of a new block: a re-proposal was certified in its parent's view, by clocks that may
        run ahead of this one, and V1 has every clock vote for it.
        """
        parent = (proposal.epoch, proposal.parent_view)
        for kind in (Kind.NOTARIZE, Kind.FINALIZE):
            certified = self.proposals.get(self._certified[kind].get(parent, b""))
            if certified is not None and certified.block_hash == proposal.block_hash:
                return
        world, header = self.world, self.headers[proposal.block_hash]
        wall_ms = world.genesis_time_ms + world.now_ms + node.skew_max_ms
        if header.timestamp_ms > wall_ms + DRIFT_MS:
            self.fail("I6", f"{where}: its block is from the future")

    def _is_stored(self, node: "Node", found: bytes) -> bool:
        return found in node.executor.durable

    # --- what could be certified --------------------------------------------------------------

    def _certifiable(self, view: View, kind: Kind, pid: bytes) -> None:
        first = self._certified[kind].get(view)
        if first == pid:
            return
        self._certified[kind].setdefault(view, pid)
        if first is not None:
            self.fail("I3", f"two proposals of view {view} have a quorum for {kind.name}")
        if kind == Kind.NULLIFY or kind == Kind.FINALIZE:
            other = Kind.FINALIZE if kind == Kind.NULLIFY else Kind.NULLIFY
            if view in self._certified[other]:
                self.fail("I2", f"view {view} can be finalized and nullified")
        if kind == Kind.NOTARIZE:
            self._check_stored(view, pid)
            self._check_descent(view, pid)
        elif kind == Kind.FINALIZE:
            for later, other_pid in self._certified[Kind.NOTARIZE].items():
                if later > view:
                    self._check_pair(view, pid, later, other_pid)

    def _check_descent(self, view: View, pid: bytes) -> None:
        earlier = [at for at in self._certified[Kind.FINALIZE] if at < view]
        if earlier:
            at = max(earlier)
            self._check_pair(at, self._certified[Kind.FINALIZE][at], view, pid)

    def _check_pair(self, view: View, pid: bytes, later: View, later_pid: bytes) -> None:
        """I1: what is notarized after a final view descends from its block."""
        final, proposal = self.proposals.get(pid), self.proposals.get(later_pid)
        if final is None or proposal is None:
            return
        if not self.is_ancestor(final.block_hash, proposal.block_hash):
            self.fail("I1", f"view {later} is notarized beside the final block of view {view}")

    def is_ancestor(self, ancestor: bytes, descendant: bytes) -> bool:
        """Say whether one block is the other or lies below it, by headers that were seen."""
        genesis = self.world.chain.genesis_hash
        if ancestor == genesis:
            return True
        height = self.headers[ancestor].height
        while descendant != genesis and self.headers[descendant].height > height:
            descendant = self.headers[descendant].parent_hash
        return descendant == ancestor

    def _check_stored(self, view: View, pid: bytes) -> None:
        proposal = self.proposals.get(pid)
        if proposal is not None and not any(
            self._is_stored(node, proposal.block_hash) for node in self.world.honest
        ):
            self.fail("I10", f"the payload of view {view} is notarized and on no honest disk")

    def _certificate(self, node: "Node", certificate: Certificate) -> None:
        """I3, I8: what an honest node hands on holds, by arithmetic of its own."""
        view = (certificate.epoch, certificate.view)
        if not self.arithmetic.is_certificate(certificate):
            power = self._power(certificate)
            name = "I3" if power is not None else "I8"
            self.fail(name, f"node {node.index} took a bad {certificate.kind.name} of view {view}")
        pid = (
            bytes(32)
            if certificate.proposal is None
            else self.arithmetic.proposal_id(certificate.proposal)
        )
        if certificate.proposal is not None:
            self.proposals.setdefault(pid, certificate.proposal)
        self._certifiable(view, certificate.kind, pid)
        self._know(node, certificate)

    def _power(self, certificate: Certificate) -> int | None:
        """Return a certificate's power if its signatures hold, else None."""
        facts = self.arithmetic.epoch(certificate.epoch)
        pid = (
            bytes(32)
            if certificate.proposal is None
            else self.arithmetic.proposal_id(certificate.proposal)
        )
        signers = [at for at in range(len(facts.keys)) if certificate.signers >> at & 1]
        if len(signers) != len(certificate.signatures):
            return None
        message = facts.message(certificate.kind, certificate.view, pid)
        for at, signature in zip(signers, certificate.signatures, strict=True):
            if not self.world.keyring.verify(facts.keys[at], message, signature):
                return None
        return sum(facts.powers[at] for at in signers)

    def _know(self, node: "Node", certificate: Certificate) -> None:
        known = self._known[node.host].setdefault((certificate.epoch, certificate.view), [])
        if certificate not in known:
            known.append(certificate)

    def known_views(self, node: "Node") -> list[tuple[View, list[int]]]:
        """Return which kinds of certificates a node has handed on, by view."""
        known = self._known[node.host]
        return [(view, sorted({c.kind for c in known[view]})) for view in sorted(known)]

    def votes_in_order(self) -> list[tuple[int, int, int, list[int]]]:
        """Return honest votes by node and view; proposals numbered in the order of views."""
        numbers: dict[bytes | None, int] = {None: -1}
        rows = []
        for node, epoch, view in sorted(self._votes, key=lambda key: (key[1], key[2], key[0])):
            pids = self._votes[node, epoch, view]
            rows.append(
                (node, epoch, view, [numbers.setdefault(pid, len(numbers)) for pid in pids])
            )
        return rows

    # --- what honest nodes hear ---------------------------------------------------------------

    def delivering(self, node: "Node", message: Message) -> None:
        """See a message arrive."""
        kind = type(message)
        if kind is Vote:
            self.evidence.heard(node, message)  # type: ignore[arg-type]
        elif kind is Propose:
            self.learn(message)  # type: ignore[arg-type]
            self.evidence.proposed(node, message)  # type: ignore[arg-type]

    def penalized(self, node: "Node", effect: Penalize) -> None:
        """I9: no honest node is blamed by another one."""
        peer = self.world.index_of[effect.peer]
        if node.index not in self.world.byzantine and peer not in self.world.byzantine:
            self.fail("I9", f"node {node.index} blames honest node {peer}: {effect.reason}")

    def alarm(self, node: "Node", effect: Alarm) -> None:
        """Nothing that a person must hear of happens to an honest node, its executor aside."""
        if node.index in self.world.byzantine or node.index in self.world.lame:
            return
        names = {
            AlarmCode.INVALID_NOTARIZED: "I6",
            AlarmCode.CONFLICTING_CERTIFICATES: "I3",
            AlarmCode.LOST_SIGNATURE: "I4",
            AlarmCode.WRONG_EXECUTOR: "I7",
            AlarmCode.WRONG_VALIDATOR_SET: "I6",
        }
        if effect.code in names:
            self.fail(names[effect.code], f"alarm at node {node.index}: {effect.detail}")

    # --- results ------------------------------------------------------------------------------

    def judged(self, node: "Node", request: NewPayload, answer: Answer) -> None:
        """Learn a block that an executor was shown."""
        self.headers.setdefault(self.arithmetic.block_hash(request.header), request.header)
        assert answer is not None

    def forkchoice(self, node: "Node", request: ForkchoiceUpdated) -> None:
        """I7: head on safe on finalized, and finalized never goes back."""
        if node.index in self.world.byzantine:
            return
        genesis = self.world.chain.genesis_hash
        known = self.headers.keys() | {genesis}
        if not {request.head, request.safe, request.finalized} <= known:
            self.fail("I7", f"node {node.index} follows a block that nobody has proposed")
        if not (
            self.is_ancestor(request.safe, request.head)
            and self.is_ancestor(request.finalized, request.safe)
        ):
            self.fail("I7", f"node {node.index}: head, safe, finalized do not stand on each other")
        height = 0 if request.finalized == genesis else self.headers[request.finalized].height
        if height >= len(self.final) or self.final[height] != request.finalized:
            self.fail("I7", f"node {node.index} finalizes what is not final")
        if height < node.executor.finalized_height:
            self.fail("I7", f"node {node.index} takes finality back")

    def finalized(self, node: "Node", block: FinalizedBlock) -> None:
        """I1, I6, I7: see a block that a node has stored as final."""
        if node.index in self.world.byzantine:
            return
        header, height = block.header, block.header.height
        found = self.arithmetic.block_hash(header)
        if found != block.block_hash:
            self.fail("I1", f"node {node.index} files block {height} under another hash")
        self.headers.setdefault(found, header)
        if height < len(self.final):
            if self.final[height] != found:
                self.fail("I1", f"two blocks are final at height {height}")
        elif height > len(self.final) or header.parent_hash != self.final[-1]:
            self.fail("I1", f"block {height} is final and its parent is not")
        else:
            self._check_result(block)
        certificate = block.certificate
        if certificate is not None and (
            certificate.kind != Kind.FINALIZE
            or certificate.proposal is None
            or certificate.proposal.block_hash != found
            or not self.arithmetic.is_certificate(certificate)
        ):
            self.fail("I8", f"block {height} is final at node {node.index} by a bad certificate")
        if height > self.height_of[node.host]:
            self.final_ms.setdefault(found, []).append(self.world.now_ms)
        if height > self.height_of[node.host] + 1:
            self.fail("I7", f"node {node.index} jumps over heights to {height}")
        self.height_of[node.host] = max(height, self.height_of[node.host])
        self.liveness.finalized(node, block)

    def _check_result(self, block: FinalizedBlock) -> None:
        """I6: the first to finalize a height pays for executing it once more, serially."""
        header, found = block.header, block.block_hash
        payload = None
        for node in self.world.honest:
            held = node.executor.durable.get(found)
            if held is not None:
                payload = held.payload
                break
        if payload is None:
            self.fail("I10", f"block {header.height} is final and on no honest disk")
            return
        state_hash, receipts_hash = execute_serially(self.balances, payload)
        if (header.state_hash, header.receipts_hash) != (state_hash, receipts_hash):
            self.fail("I6", f"block {header.height} claims another result than its execution")
        self.final.append(found)
        length = self.world.scenario.heights_per_epoch
        epoch = (header.height - 1) // length
        facts = self.arithmetic.epoch(epoch)
        next_set = bytes(32)
        if header.height % length == 0:
            next_set = self.arithmetic.epoch(epoch + 1).set_id
        if header.epoch != epoch or header.validator_set_id != facts.set_id:
            self.fail("I6", f"block {header.height} names a wrong epoch or set")
        if header.next_validator_set_hash != next_set:
            self.fail("I6", f"block {header.height} names a wrong next set")

    # --- after every event --------------------------------------------------------------------

    def handled(self, node: "Node") -> None:
        """Check the node that has just handled an event."""
        replica = node.replica
        if replica is None or node.index in self.world.byzantine:
            return
        if self.evidence.owed[node.host]:
            self.evidence.check_owed(node)
        self._counter += 1
        if self._counter % HELD_EVERY == 0:
            held = replica.held()
            for name, (entries, per_node) in HELD_MAX.items():
                if held[name] > entries + per_node * self.world.scenario.nodes:
                    self.fail(MEMORY, f"node {node.index} holds {held[name]} {name}")
