"""A node's store of final blocks, boundaries and evidence, and what it answers to peers."""

from consensus.core.events import Persist
from consensus.core.types import (
    RANGE_HEADERS_MAX,
    BlockAnswer,
    Boundary,
    Evidence,
    Final,
    FinalizedBlock,
    Header,
    Message,
    RangeAnswer,
    Request,
    Want,
)


class Store:
    """What is durable beside the journal. It survives everything."""

    def __init__(self) -> None:
        """Begin with nothing but genesis."""
        self.blocks: dict[int, FinalizedBlock] = {}
        """by height"""
        self.boundaries: dict[int, Boundary] = {}
        """by the epoch that begins"""
        self.evidence: list[Evidence] = []
        self._heights: dict[bytes, int] = {}

    def put(self, persist: Persist) -> None:
        """Write what a `Persist` has for the store, all or nothing."""
        for block in persist.finalized:
            self.blocks[block.header.height] = block
            self._heights[block.block_hash] = block.header.height
        if persist.boundary is not None:
            self.boundaries[persist.boundary.epoch] = persist.boundary
        self.evidence += persist.evidence

    def top(self) -> FinalizedBlock | None:
        """Return the highest final block, which has its certificate."""
        return self.blocks[max(self.blocks)] if self.blocks else None

    def last_boundaries(self, count: int) -> tuple[Boundary, ...]:
        """Return the latest boundaries, ascending."""
        return tuple(found for _, found in sorted(self.boundaries.items()))[-count:]

    def load(self, first: int, count: int) -> tuple[FinalizedBlock, ...]:
        """Return blocks from a height on, up to the first that is missing."""
        found = []
        for height in range(first, first + count):
            if height not in self.blocks:
                break
            found.append(self.blocks[height])
        return tuple(found)

    def answer(self, request: Request) -> Message | None:
        """Answer a peer as `AnswerFromStore` says."""
        top = self.top()
        if top is None:
            return None
        if request.want == Want.BLOCK:
            height = self._heights.get(request.block_hash)
            return None if height is None else BlockAnswer(header=self.blocks[height].header)
        if request.want == Want.BOUNDARY:
            boundary = self.boundaries.get(request.epoch + 1)
            if boundary is None:
                return None
            return Final(header=boundary.header, certificate=boundary.certificate)
        if request.want == Want.RANGE:
            return self._range(request.first)
        assert request.want == Want.FINAL, request
        assert top.certificate is not None, "the highest final block has its certificate"
        return Final(header=top.header, certificate=top.certificate)

    def _range(self, first: int) -> RangeAnswer | None:
        headers: list[Header] = []
        certificate, count = None, 0
        for block in self.load(first, RANGE_HEADERS_MAX):
            if headers and block.header.epoch != headers[0].epoch:
                break
            headers.append(block.header)
            if block.certificate is not None:
                certificate, count = block.certificate, len(headers)
        if certificate is None:
            return None
        return RangeAnswer(headers=tuple(headers[:count]), certificate=certificate)
