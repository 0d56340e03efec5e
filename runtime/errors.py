"""How a person is told what can be put right: what, where, why, what to do, and a stable code."""

import errno


class ExplainedError(Exception):
    """Something that a person can put right: what is wrong, where, why, and what to do."""

    def __init__(self, code: str, *, what: str, where: str, why: str, what_to_do: str) -> None:
        """Keep the four sentences (without a full stop) and the code, which never changes."""
        super().__init__(
            f"{what}\n  where: {where}\n  why: {why}\n  what to do: {what_to_do}\n  code: {code}"
        )
        self.code = code
        self.what = what
        self.where = where
        self.why = why
        self.what_to_do = what_to_do


def signatures_unusable(error: Exception) -> ExplainedError:
    """Return what a person is told where no path verifies signatures as the specification says."""
    return ExplainedError(
        "process.signatures",
        what="signatures cannot be verified on this machine",
        where=type(error).__name__,
        why=str(error),
        what_to_do="see `python -m engine doctor`, and unset TOS_ED25519 if it is set",
    )


def advice_on_listening(error: OSError) -> str:
    """Return what to do where nothing can listen at an address."""
    if error.errno == errno.EADDRINUSE:
        return "stop the process that listens there, choose another port, or port 0"
    if error.errno == errno.EACCES:
        return "choose a port from 1024 on: this user may not take lower ones"
    return "write an address of this machine, such as 127.0.0.1 and a port"
