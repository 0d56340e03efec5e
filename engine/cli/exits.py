"""Exit codes, for scripts and supervisors. They are stable."""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    """it began, and something broke: the store or the device failed, or a check found damage"""
    REFUSED = 2
    """it did not begin: the command line, a setting or the home is not usable; stderr says why"""
    NO_DEVICE = 3
    """a GPU was asked for, and there is none that can be used"""
