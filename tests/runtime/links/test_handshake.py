"""The handshake without a socket: lost, repeated, mixed up and forged messages."""

import dataclasses
import hashlib
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_sign_open

from runtime.keypair import MIXED_KEY, KeyPair
from runtime.links.admission import Admission, Refused
from runtime.links.handshake import Dialler, Identity, Listener, Taken, verifies
from runtime.links.limits import ATTEMPT_MS, PENDING_MAX, PING_MS, RETRY_LAST_MS, SILENT_MS
from runtime.links.wire import (
    Challenge,
    Control,
    ControlError,
    Hello,
    Ping,
    Pong,
    Proof,
    Ready,
    Reset,
    decode_control,
    encode_control,
)
from spec import oracle
from tests.runtime.links.harness import DOMAIN, LIMITS, OPEN_LIMITS, pair

B32 = st.binary(min_size=32, max_size=32)
B64 = st.binary(min_size=64, max_size=64)
U8 = st.integers(0, 255)
CONTROLS = st.one_of(
    st.builds(Hello, socket_class=U8, key=B32, nonce=B32),
    st.builds(Challenge, dialler_nonce=B32, listener_nonce=B32, key=B32),
    st.builds(Proof, dialler_nonce=B32, listener_nonce=B32, signature=B64),
    st.builds(Ready, dialler_nonce=B32, listener_nonce=B32, signature=B64),
    st.builds(Reset),
    st.builds(Ping, listener_nonce=B32),
    st.builds(Pong, listener_nonce=B32),
)
PLACE = b"here"


class Pair:
    """Node 1 dials node 2; the test carries the messages."""

    def __init__(self, seed: int = 0) -> None:
        """Begin before the first HELLO."""
        self.rng = random.Random(seed)
        draw = self.draw
        self.admission = Admission(
            own_key=pair(2).public_key, limits=LIMITS, members=[pair(1).public_key]
        )
        self.listener = Listener(
            identity=identity(2), admission=self.admission, draw=draw, now_ms=0
        )
        self.dialler = Dialler(identity=identity(1), peer=pair(2).public_key, draw=draw, now_ms=0)

    def draw(self) -> bytes:
        """Return a nonce of the seed."""
        return self.rng.randbytes(32)

    def up(self, control: bytes | None, now_ms: int = 0) -> bytes:
        """Carry a message to the listener; return its reply."""
        assert control is not None
        taken = self.listener.take(PLACE, decode_control(control), now_ms)
        assert taken.reply is not None
        return taken.reply

    def down(self, control: bytes, now_ms: int = 0) -> bytes | None:
        """Carry a message to the dialler; return its answer."""
        return self.dialler.take(decode_control(control), now_ms)

    def open(self) -> list[bytes]:
        """Carry a whole handshake; return its four messages."""
        hello = self.dialler.tick(0)
        assert hello is not None
        challenge = self.up(hello)
        proof = self.down(challenge)
        assert proof is not None
        ready = self.up(proof)
        assert self.down(ready) is None
        assert self.dialler.is_open
        return [hello, challenge, proof, ready]


def identity(number: int) -> Identity:
    """Return who a node is."""
    return Identity(pair=pair(number), domain=DOMAIN, socket_class=1)


@given(CONTROLS)
def test_control_messages_have_one_encoding(control: Control) -> None:
    """Every control message survives, and a byte more or less is none."""
    data = encode_control(control)
    assert decode_control(data) == control
    with pytest.raises(ControlError):
        decode_control(data + b"x")
    with pytest.raises(ControlError):
        decode_control(data[:-1])


@given(st.binary(max_size=140))
def test_garbage_is_a_typed_error(data: bytes) -> None:
    """Whatever the bytes, they are a message that encodes to them again, or a ControlError."""
    try:
        control = decode_control(data)
    except ControlError:
        return
    assert encode_control(control) == data


def test_a_hello_of_another_version_is_none() -> None:
    """The version is part of the message."""
    data = encode_control(Hello(socket_class=1, key=bytes(32), nonce=bytes(32)))
    with pytest.raises(ControlError):
        decode_control(data[:1] + b"\2" + data[2:])


def test_four_messages_open_a_connection() -> None:
    """Both sides are open after HELLO, CHALLENGE, PROOF, READY."""
    net = Pair()
    net.open()
    assert net.listener.place_of(pair(1).public_key) == PLACE
    assert net.listener.key_at(PLACE, 0) == pair(1).public_key


def test_every_message_may_come_twice(seed: int) -> None:
    """Repetition of any message at any time changes nothing and is answered alike."""
    net = Pair(seed)
    hello, challenge, proof, ready = net.open()
    assert net.listener.take(PLACE, decode_control(hello), 0) == Taken()
    assert net.up(proof) == ready
    assert net.down(challenge) is None
    assert net.down(ready) is None
    assert net.dialler.is_open


def test_every_bit_of_a_proof_counts(seed: int) -> None:
    """A handshake with any one bit changed on the way opens nothing at whoever was deceived."""
    rng = random.Random(seed)
    for step in range(4):
        for _ in range(20):
            net = Pair(rng.getrandbits(32))
            message = net.dialler.tick(0)
            for at in itertools.count():
                assert message is not None
                if at == step:
                    changed = bytearray(message)
                    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
                    message = bytes(changed)
                try:
                    answer = (
                        net.down(message)
                        if at % 2
                        else net.listener.take(PLACE, decode_control(message), 0).reply
                    )
                except (ControlError, Refused):
                    break
                if answer is None or at == 3:
                    break
                message = answer
            assert not net.dialler.is_open
            assert step == 3 or net.listener.peers() == []


def test_a_proof_is_good_once() -> None:
    """After its session has ended the same HELLO and PROOF open nothing."""
    net = Pair()
    hello, _, proof, _ = net.open()
    net.listener.close(PLACE)
    assert decode_control(net.up(proof)) == Reset()
    net.up(hello)
    assert decode_control(net.up(proof)) == Reset()
    assert net.listener.peers() == []


def test_a_proof_of_a_failed_attempt_uses_the_nonce_up() -> None:
    """A wrong signature costs the nonce: nobody tries many against one challenge."""
    net = Pair()
    proof = net.down(net.up(net.dialler.tick(0)))
    assert proof is not None
    with pytest.raises(Refused, match="signature"):
        net.listener.take(PLACE, decode_control(proof[:-1] + bytes([proof[-1] ^ 1])), 0)
    assert decode_control(net.up(proof)) == Reset()


def test_a_dialler_is_not_deceived_by_its_own_words() -> None:
    """The signature of one role is none of the other."""
    net = Pair()
    challenge = net.up(net.dialler.tick(0))
    proof = net.down(challenge)
    assert proof is not None
    sent = decode_control(proof)
    assert isinstance(sent, Proof)
    with pytest.raises(Refused, match="signature"):
        net.dialler.take(Ready(**dataclasses.asdict(sent)), 0)


def test_a_lost_session_is_opened_anew() -> None:
    """PING to a listener that knows nothing brings RESET, and RESET a new handshake."""
    net = Pair()
    net.open()
    ping = net.dialler.tick(PING_MS)
    assert isinstance(decode_control(ping or b""), Ping)
    assert isinstance(decode_control(net.up(ping)), Pong)
    net.listener.close(PLACE)
    assert net.down(net.up(ping)) is None
    assert not net.dialler.is_open
    hello = net.dialler.tick(PING_MS)
    proof = net.down(net.up(hello))
    assert proof is not None
    net.down(net.up(proof))
    assert net.dialler.is_open


def test_silence_begins_anew() -> None:
    """A dialler that hears nothing for long says HELLO again; with a PONG in time it stays."""
    net = Pair()
    net.open()
    pong = net.up(net.dialler.tick(PING_MS))
    net.down(pong, SILENT_MS - 1)
    assert isinstance(decode_control(net.dialler.tick(SILENT_MS) or b""), Ping)
    assert isinstance(decode_control(net.dialler.tick(2 * SILENT_MS) or b""), Hello)
    assert not net.dialler.is_open
    assert net.listener.silent(2 * SILENT_MS) == [PLACE]


def test_unanswered_steps_are_sent_again() -> None:
    """A HELLO is repeated less and less often, a PROOF only for so long."""
    net = Pair()
    times = [ms for ms in range(0, 12_000, 10) if net.dialler.tick(ms) is not None]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[:3] == [250, 500, 1_000]
    assert set(gaps[3:]) == {RETRY_LAST_MS}
    start_ms = 12_000
    hello = net.dialler.tick(start_ms + RETRY_LAST_MS)
    net.down(net.up(hello), start_ms)
    kinds = [
        type(decode_control(sent))
        for ms in range(start_ms, start_ms + ATTEMPT_MS + 10, 10)
        if (sent := net.dialler.tick(ms)) is not None
    ]
    assert kinds[-1] is Hello
    assert set(kinds[:-1]) == {Proof}


def test_handshakes_under_way_are_bounded() -> None:
    """However many claim to begin, few are remembered, and a member among them is."""
    admission = Admission(
        own_key=pair(2).public_key, limits=OPEN_LIMITS, members=[pair(1).public_key]
    )
    net = Pair()
    listener = Listener(identity=identity(2), admission=admission, draw=net.draw, now_ms=0)
    hello = decode_control(net.dialler.tick(0) or b"")
    challenge = listener.take(PLACE, hello, 0).reply
    for number in range(2 * PENDING_MAX):
        key = number.to_bytes(32, "big")
        greeting = Hello(socket_class=1, key=key, nonce=bytes(32))
        listener.take(number.to_bytes(5, "big"), greeting, 0)
    proof = net.down(challenge or b"")
    assert listener.take(PLACE, decode_control(proof or b""), 0).opened == pair(1).public_key


def test_what_a_side_never_receives_is_refused() -> None:
    """A listener takes no words of listeners, a dialler none of diallers."""
    net = Pair()
    with pytest.raises(Refused, match="out_of_turn"):
        net.listener.take(PLACE, Reset(), 0)
    with pytest.raises(Refused, match="out_of_turn"):
        net.dialler.take(Ping(listener_nonce=bytes(32)), 0)
    hello = Hello(socket_class=1, key=pair(2).public_key, nonce=bytes(32))
    with pytest.raises(Refused, match="own_key"):
        net.listener.take(PLACE, hello, 0)


def test_a_key_of_mixed_order_proves_nothing() -> None:
    """Whoever knows a secret can sign under eight keys; only the one of prime order is somebody."""
    base = KeyPair.of(b"\1" * 32)
    digest = hashlib.sha512(base.seed).digest()[:32]
    secret = int.from_bytes(digest, "little") & (2**254 - 8) | 2**254
    assert oracle.ed_encode(oracle.ed_multiply(secret, oracle.ED_BASE)) == base.public_key
    for nonce in itertools.count(1):
        r = oracle.ed_encode(oracle.ed_multiply(nonce, oracle.ED_BASE))
        h = int.from_bytes(hashlib.sha512(r + MIXED_KEY + b"message").digest(), "little")
        if h % oracle.ED_L % 2 == 0:
            break
    signature = r + oracle.uint((nonce + h * secret) % oracle.ED_L, 32)
    assert oracle.is_valid_signature(MIXED_KEY, signature, b"message")
    assert crypto_sign_open(signature + b"message", MIXED_KEY) == b"message"
    assert not verifies(MIXED_KEY, b"message", signature)
    assert verifies(base.public_key, b"message", base.sign(b"message"))
