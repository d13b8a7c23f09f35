"""The exceptions and the warning that reach a user."""

LONGEST = 1000  # characters of a line: it may quote a value from a damaged file


class Mistake(Exception):
    """Something that the user can put right. Its text is one line, whatever is quoted in it; the command line prints it and
    exits with status 1."""

    def __init__(self, text: str) -> None:
        line = " ".join(text.splitlines())
        super().__init__(line if len(line) <= LONGEST else f"{line[:LONGEST]} ...")


class Diverged(UserWarning):
    """A run's loss was not finite, and the run ended. The sentence is printed, and put in the record of the stage."""


class OutOfTime(Exception):
    """Time is up; what was done is kept. The same call goes on from there; the command line exits with status 75."""
