"""Lines for a terminal, which may have few characters: what it lacks is shown by what is like it. And an exit status."""

import codecs
import re
import unicodedata

OUT_OF_TIME = 75  # exit status: not done, try again (EX_TEMPFAIL of sysexits.h)
PLAINLY = "secondlook.plainly"  # a way to treat errors of encoding, by the name that streams take
PLAIN = str.maketrans({"−": "-", "–": "-", "×": "x", "∞": "inf", "…": "..."})


def say(text: str) -> None:
    """Print a line now, also into a file or a pipe."""
    print(text, flush=True)


def plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    """What a terminal of few characters shows in place of those that it lacks: 8×10⁻⁵ as 8x10^-5, what nothing is like as ?."""
    assert isinstance(error, UnicodeEncodeError)  # the only kind that asks
    text = error.object[error.start : error.end]
    raised = re.sub("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda found: "^" + unicodedata.normalize("NFKD", found[0]), text)
    plain = raised.translate(PLAIN).encode("ascii", "replace").decode()
    return plain, error.end


codecs.register_error(PLAINLY, plainly)
