"""TLS by the URL's own parameters, and the file of authorities."""

from pathlib import Path

from pydantic import SecretStr

from penstock.settings.url import TLS_PARAMETERS, DatabaseUrl

__all__ = ["check_ca_file", "move_tls"]


def move_tls(given: dict[str, object]) -> dict[str, str]:
    """Turn the URL's TLS parameters into settings, unless those are set.

    Args:
        given: What was set, by field name; changed in place.

    Returns:
        Which parameters have moved, and to which field.
    """
    text = given.get("url")
    try:
        url = DatabaseUrl.parse(text.get_secret_value() if isinstance(text, SecretStr) else "")
    except ValueError:
        return {}
    moved: dict[str, str] = {}
    for parameter, field in TLS_PARAMETERS.items():
        value = url.parameter(parameter)
        if url.is_postgresql and value is not None and field not in given:
            given[field], moved[parameter] = value, field
            url = url.without(parameter)
    if moved:
        given["url"] = SecretStr(url.text())
    return moved


def check_ca_file(path: Path, *, is_used: bool) -> None:
    """Refuse a file of authorities that is of no use.

    Args:
        path: Of the file.
        is_used: Whether the server's certificate is checked at all.

    Raises:
        ValueError: It cannot be read, or nothing would look at it; the message says which.
    """
    if not _is_readable(path):
        raise ValueError("there is no such file, or it cannot be read")
    if not is_used:
        raise ValueError("it takes effect with tls verify-ca or verify-full only")


def _is_readable(path: Path) -> bool:
    try:
        with path.open("rb"):
            return True
    except (OSError, ValueError):
        return False
