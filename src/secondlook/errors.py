"""The exceptions that reach a user."""


class Mistake(Exception):
    """Something that the user can put right. Its text is one line; the command line prints it and exits with status 1."""


class OutOfTime(Exception):
    """Time is up; what was done is kept. The same call goes on from there; the command line exits with status 75."""
