"""Text from elsewhere, made fit for a terminal."""

import re
import unicodedata

__all__ = ["plain"]

_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # titles, links
    r"|\x1b[ -/]*[0-~]?"
)
_SPACES = re.compile(r"\s+")


def plain(text: str, longest: int = 1000) -> str:
    """Return text on one line, without anything that a terminal would obey.

    Escape sequences are left out, and so are characters that are not seen: control characters,
    marks that turn the direction of writing, and half surrogates, which cannot be encoded.

    Args:
        text: From a server.
        longest: Characters to which it is cut.
    """
    without = _SEQUENCES.sub("", text[: 4 * longest])
    spaced = _SPACES.sub(" ", without)
    seen = "".join(each for each in spaced if not unicodedata.category(each).startswith("C"))
    return seen.strip()[:longest]
