"""The one error type that users meet."""


class PellucidError(Exception):
    """A user's mistake, or a limit they met: what is wrong, where, and what to do about it.

    The command line prints the three parts on at most three lines and exits with code 2.
    Whoever raises it has changed nothing on disk.

    Args:
        what: What is wrong, one sentence.
        where: The file, option, column, byte or step where it was found; may be empty.
        fix: What the user can do about it; may be empty.
    """

    exit_code = 2

    def __init__(self, what: str, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__("\n".join(part for part in (what, where, fix) if part))


class StoppedError(PellucidError):
    """Ctrl-C, after everything was saved."""

    exit_code = 130
