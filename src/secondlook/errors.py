"""The one exception that a user is meant to see."""


class Mistake(Exception):
    """Something that the user can put right. Its text is one line; the command line prints it and exits with status 1."""
