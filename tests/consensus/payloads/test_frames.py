"""The four frames: what is encoded decodes, everything else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.core.types import Hash32
from consensus.payloads import frames
from consensus.payloads.chunks import CHUNK_BYTES, tree_of

LIMIT = 8 * CHUNK_BYTES
HASHES = st.binary(min_size=32, max_size=32).map(Hash32)


@given(length=st.integers(1, 3 * CHUNK_BYTES), data=st.data())
def test_a_chunk_survives(length: int, data: st.DataObject) -> None:
    """A chunk decodes to itself; one byte more or less does not decode."""
    payload = bytes(length)
    tree = tree_of(payload)
    index = data.draw(st.integers(0, (length - 1) // CHUNK_BYTES))
    start = index * CHUNK_BYTES
    piece = memoryview(payload)[start : start + CHUNK_BYTES]
    frame = frames.encode_chunk(
        commitment=tree.commitment,
        payload_bytes=length,
        index=index,
        path=tree.path(index),
        data=piece,
    )
    assert len(frame) <= frames.frame_bytes_max(LIMIT)
    chunk = frames.decode(frame, LIMIT)
    assert isinstance(chunk, frames.Chunk)
    assert (chunk.commitment, chunk.payload_bytes, chunk.index) == (tree.commitment, length, index)
    assert (bytes(chunk.path), chunk.data) == (tree.path(index), piece)
    for wrong in (frame[:-1], frame + b"\0"):
        with pytest.raises(frames.WrongFrame):
            frames.decode(wrong, LIMIT)
    with pytest.raises(frames.WrongFrame):
        frames.decode(frame, length - 1)


@given(
    commitment=HASHES,
    indices=st.lists(st.integers(0, 2**32 - 1), max_size=64),
    is_stop=st.booleans(),
)
def test_an_acknowledgement_survives(commitment: Hash32, indices: list[int], is_stop: bool) -> None:
    """An ACK decodes to itself."""
    ack = frames.decode(frames.encode_ack(commitment, indices, is_stop=is_stop), LIMIT)
    assert ack == frames.Ack(commitment=commitment, is_stop=is_stop, indices=tuple(indices))


@given(block_hash=HASHES, commitment=HASHES, first=st.integers(0, 7), count=st.integers(1, 8))
def test_a_question_survives_or_is_refused(
    block_hash: Hash32, commitment: Hash32, first: int, count: int
) -> None:
    """A GET decodes to itself when its chunks exist, and is refused when they do not."""
    get = frames.Get(
        block_hash=block_hash,
        commitment=commitment,
        payload_bytes=LIMIT,
        first=first,
        count=count,
    )
    frame = frames.encode_get(get)
    if first + count <= 8:
        assert frames.decode(frame, LIMIT) == get
    else:
        with pytest.raises(frames.WrongFrame):
            frames.decode(frame, LIMIT)


@given(frame=st.binary(max_size=400))
def test_noise_is_refused_or_is_one_encoding(frame: bytes) -> None:
    """Random bytes raise nothing but WrongFrame."""
    try:
        said = frames.decode(frame, LIMIT)
    except frames.WrongFrame:
        return
    assert isinstance(said, frames.Chunk | frames.Ack | frames.Get | frames.Missing)
