"""What a text tells, however it is worded: its numbers, and what each setting is to be set to."""

import re

from penstock import DatabaseSettings

_OF_THE_SERVER = {
    "idle_in_transaction_session_timeout",
    "max_connections",
    "max_standby_streaming_delay",
    "wal_keep_size",
}
_NAMES = sorted({*DatabaseSettings.model_fields, *_OF_THE_SERVER} - {"url"}, key=len, reverse=True)
_SETTING = rf"\b(?:{'|'.join(_NAMES)})\b"
_VALUE = re.compile(r"(?<![\w.])(?:\d+(?:\.\d+)?[A-Za-z]*|true|false)")
# What is said of a setting ends with the next one, with the clause, or before what is in brackets.
_CLAUSE = re.compile(rf"({_SETTING})((?:(?!{_SETTING}|[.,;:](?:\s|$)|\().)*)")


def numbers(text: str) -> list[str]:
    """The numbers in a text, those of seconds with their unit."""
    return re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?: s\b)?", text)


def advised(text: str) -> dict[str, str]:
    """What settings should be by a remedy: the last value behind each one's name.

    Of several settings with one value, such as ``a and b to 5``, each has it.
    """
    found: dict[str, str] = {}
    without_value: list[str] = []
    for name, clause in _CLAUSE.findall(text):
        without_value.append(name)
        if values := _VALUE.findall(clause):
            found |= dict.fromkeys(without_value, values[-1])
        if values or clause not in {" and ", " + "}:
            without_value.clear()
    return found
