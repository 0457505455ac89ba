"""The one exception a user is meant to see: what went wrong, where, and what to do about it."""

from __future__ import annotations


class DipscopeError(Exception):
    """A failure that is explained in one line.

    Args:
        what: what went wrong, as a short clause.
        where: the file, key, cell or checkpoint it went wrong in.
        fix: what the reader can do about it.
        fault: True when the machine or the workspace is at fault rather than the user's input.

    The command line prints it without a traceback and exits with `exit_code`: 2 for the user's input,
    1 for a fault.
    """

    def __init__(self, what: str, where: str = "", fix: str = "", *, fault: bool = False) -> None:
        self.what, self.where, self.fix, self.fault = what, where, fix, fault
        super().__init__(what, where, fix)

    @property
    def exit_code(self) -> int:
        """2 when the input is wrong, 1 when something else is."""
        return 1 if self.fault else 2

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip from a worker process with `fault` intact."""
        return (_rebuild, (self.what, self.where, self.fix, self.fault))

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        return " ".join((f"{line}. {self.fix}" if self.fix else line).split())


def _rebuild(what: str, where: str, fix: str, fault: bool) -> DipscopeError:
    return DipscopeError(what, where, fix, fault=fault)
