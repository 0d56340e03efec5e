"""Exit codes, for scripts and supervisors. They are stable, and those of consensus too."""

from runtime.command_line import ExitCode as ExitCode
