"""Peers are answered from the disk in turn, and in a part of its thread's time."""

from consensus.answers import (
    PEER_WAITING_MAX,
    REST_MS_MAX,
    RESTS_PER_ANSWER,
    WAITING_MAX,
    Answers,
)
from consensus.core.events import AnswerFromStore
from consensus.core.state import REQUESTS_MAX
from consensus.core.types import PeerId, Request, Want
from consensus.waiting import NS_PER_MS

LAGGARD = PeerId(b"l" * 32)


def ask(number: int, first: int) -> AnswerFromStore:
    """Return a question of a peer with this number."""
    return of(PeerId(number.to_bytes(32, "big")), first)


def of(peer: PeerId, first: int) -> AnswerFromStore:
    """Return a question of a peer."""
    return AnswerFromStore(peer=peer, request=Request(want=Want.RANGE, first=first))


def test_a_laggard_has_its_turn_while_a_third_is_hostile() -> None:
    """33 members ask for all that the core lets through, over and over; one asks for one range."""
    answers, now_ns, took_ns = Answers(), 0, NS_PER_MS
    served, answered, begun_ns = 0, 0, []
    for _ in range(50):
        for number in range(33):
            for first in range(REQUESTS_MAX):
                answers.put(ask(number, first))
        answers.put(of(LAGGARD, 1))
        begun_ns.append(now_ns)
        while (effect := answers.take(now_ns)) is None or effect.peer != LAGGARD:
            if effect is None:
                now_ns += (answers.wait_ms(now_ns) or 0) * NS_PER_MS
                continue
            answers.rest(now_ns, now_ns + took_ns)
            now_ns += took_ns
            served += 1
        answers.rest(now_ns, now_ns + took_ns)
        now_ns += took_ns
        answered += 1
        assert now_ns - begun_ns[-1] <= 35 * (1 + RESTS_PER_ANSWER) * took_ns
    assert answered == 50
    assert (served + answered) * took_ns <= now_ns // (1 + RESTS_PER_ANSWER) + took_ns
    assert len(answers) <= 33 * PEER_WAITING_MAX
    assert answers.refused_count > 0


def test_what_waits_already_is_not_queued_again() -> None:
    """A repeated question has one answer, and is no refusal; it may be asked again later."""
    answers = Answers()
    for _ in range(100):
        answers.put(of(LAGGARD, 1))
    answers.put(ask(1, 1))
    assert (len(answers), answers.refused_count) == (2, 0)
    assert [answers.take(0) for _ in range(3)] == [of(LAGGARD, 1), ask(1, 1), None]
    answers.put(of(LAGGARD, 1))
    assert answers.take(0) == of(LAGGARD, 1)
    assert not answers._waiting, "nothing is remembered of who waits for nothing"


def test_turns_go_round_and_each_keeps_its_order() -> None:
    """Whoever asked for much waits behind all others after each answer."""
    answers = Answers()
    for effect in (ask(1, 7), ask(1, 5), ask(1, 6), ask(2, 1), ask(3, 1), ask(2, 2)):
        answers.put(effect)
    order = [ask(1, 7), ask(2, 1), ask(3, 1), ask(1, 5), ask(2, 2), ask(1, 6), None]
    assert [answers.take(0) for _ in order] == order


def test_what_waits_is_bounded() -> None:
    """Of a peer; of all; beyond, one of each that waits for none, and of so many peers at most."""
    answers = Answers(peer_max=2, waiting_max=4)
    for effect in [ask(number, first) for number in (1, 2) for first in range(3)]:
        answers.put(effect)
    assert (len(answers), answers.refused_count) == (4, 2)
    for effect in (ask(1, 9), ask(3, 9), ask(3, 8), ask(4, 9), ask(5, 9)):
        answers.put(effect)
    assert (len(answers), answers.refused_count) == (6, 5)
    assert answers.take(0) == ask(1, 0)
    answers.put(ask(1, 1))
    assert (len(answers), answers.refused_count) == (5, 5), "it waits already"
    assert WAITING_MAX >= 33 * PEER_WAITING_MAX


def test_a_rest_follows_each_answer() -> None:
    """As long as a share of the time demands, rounded up, and never very long."""
    answers = Answers()
    assert answers.wait_ms(0) is None
    for first in range(3):
        answers.put(of(LAGGARD, first))
    assert answers.wait_ms(0) == 0
    assert answers.take(0) is not None
    answers.rest(0, 1)
    end_ns = 1 + RESTS_PER_ANSWER
    assert answers.take(end_ns - 1) is None
    assert (answers.wait_ms(end_ns - 1), answers.wait_ms(end_ns)) == (1, 0)
    assert answers.take(end_ns) is not None
    answers.rest(0, 10**12)
    assert answers.wait_ms(10**12) == REST_MS_MAX
    assert answers.take(10**12 + REST_MS_MAX * NS_PER_MS) is not None
