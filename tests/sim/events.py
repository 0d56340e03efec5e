"""The kinds of entries on the simulator's one heap of what is to happen."""

(DELIVER, WAKE, ANSWER, FAILED, RUN, SYNCED, PAYLOAD, FETCH, LOADED, FAULT, ADVERSARY) = range(11)

NAMES = (
    "deliver", "wake", "answer", "failed", "run", "synced", "payload", "fetch", "loaded", "fault",
    "adversary",
)  # fmt: skip
