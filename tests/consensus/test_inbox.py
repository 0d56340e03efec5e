"""The inbox bounds what peers send and never refuses what was asked for."""

import threading

from consensus.core.events import Loaded, Received
from consensus.core.types import Epoch, PeerId, Request, VotesAnswer, Want
from consensus.inbox import Inbox

A, B = PeerId(b"a"), PeerId(b"b")
MESSAGE = Request(want=Want.FINAL)


def test_events_go_first_and_each_kind_in_its_order() -> None:
    """What was asked for is taken before messages, each in the order of its coming."""
    inbox = Inbox()
    assert inbox.offer(A, MESSAGE)
    assert inbox.offer(B, MESSAGE)
    inbox.put(Loaded(blocks=()))
    assert len(inbox) == 3
    assert inbox.take(0) == Loaded(blocks=())
    assert inbox.take(0) == Received(peer=A, message=MESSAGE)
    assert inbox.take(0) == Received(peer=B, message=MESSAGE)
    assert inbox.take(0) is None


def test_a_peer_has_its_share_and_all_have_a_limit() -> None:
    """One peer cannot take the room of another; what is refused is counted, and room comes back."""
    inbox = Inbox(messages_max=3, peer_messages_max=2, peer_messages_kept=0)
    assert [inbox.offer(A, MESSAGE) for _ in range(3)] == [True, True, False]
    assert [inbox.offer(B, MESSAGE) for _ in range(2)] == [True, False]
    assert inbox.refused_count == 2
    for _ in range(100):
        inbox.put(Loaded(blocks=()))
    assert len(inbox) == 103
    while inbox.take(0) is not None:
        pass
    assert [inbox.offer(A, MESSAGE) for _ in range(3)] == [True, True, False]


def test_requests_leave_room_for_votes() -> None:
    """Strangers send nothing but requests: however many of them ask, a vote is taken."""
    inbox = Inbox(messages_max=4, peer_messages_kept=0, requests_max=2)
    vote = VotesAnswer(epoch=Epoch(0), signer=0, votes=())
    strangers = [PeerId(bytes([n])) for n in range(10)]
    assert [inbox.offer(peer, MESSAGE) for peer in strangers] == [True] * 2 + [False] * 8
    assert [inbox.offer(A, vote) for _ in range(3)] == [True, True, False]
    assert inbox.refused_count == 9
    while inbox.take(0) is not None:
        pass
    assert [inbox.offer(peer, MESSAGE) for peer in strangers] == [True] * 2 + [False] * 8


def test_a_few_votes_of_each_find_room() -> None:
    """However much others sent before, and no more than a few; requests have no such room."""
    inbox = Inbox(messages_max=6, peer_messages_max=3, peer_messages_kept=2)
    vote = VotesAnswer(epoch=Epoch(0), signer=0, votes=())
    loud = [PeerId(bytes([n])) for n in range(2)]
    assert [inbox.offer(peer, vote) for peer in loud for _ in range(4)] == [*[True] * 3, False] * 2
    assert not inbox.offer(A, MESSAGE)
    assert [inbox.offer(A, vote) for _ in range(3)] == [True, True, False]
    assert [inbox.offer(B, vote) for _ in range(3)] == [True, True, False]
    while inbox.take(0) is not None:
        pass
    assert [inbox.offer(A, vote) for _ in range(4)] == [*[True] * 3, False]
    assert inbox.refused_count == 6


def test_requests_of_one_peer_leave_room_for_those_of_others() -> None:
    """One that asks without end has as many waiting as are answered at once."""
    inbox = Inbox(requests_max=4, peer_requests_max=3)
    assert [inbox.offer(A, MESSAGE) for _ in range(5)] == [True] * 3 + [False] * 2
    assert [inbox.offer(B, MESSAGE) for _ in range(2)] == [True, False]
    assert inbox.take(0) == Received(peer=A, message=MESSAGE)
    assert inbox.offer(A, MESSAGE)
    while inbox.take(0) is not None:
        pass
    assert not inbox._of_peer
    assert not inbox._requests
    assert [inbox.offer(A, MESSAGE) for _ in range(4)] == [True] * 3 + [False]


def test_a_waiting_reader_is_woken() -> None:
    """Whoever waits gets what comes, and returns when it is told to."""
    inbox = Inbox()
    taken: list[object] = []

    def read() -> None:
        taken.append(inbox.take(60_000))
        taken.append(inbox.take(60_000))

    reader = threading.Thread(target=read)
    reader.start()
    inbox.put(Loaded(blocks=()))
    while len(taken) < 1:
        reader.join(0.01)
    inbox.wake()
    reader.join(30)
    assert taken == [Loaded(blocks=()), None]
    assert not inbox._is_woken, "once: the next one waits again"
