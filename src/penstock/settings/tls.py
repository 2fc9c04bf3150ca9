"""TLS by the URL's own parameters, and the files of certificates."""

from pathlib import Path

from pydantic import SecretStr

from penstock.settings.url import TLS_PARAMETERS, DatabaseUrl

__all__ = ["check_ca_file", "check_readable", "move_tls"]


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
        is_moved = url.is_postgresql and not url.keeps(parameter)
        if is_moved and value is not None and field not in given:
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
    check_readable(path)
    if not is_used:
        raise ValueError("it takes effect with tls verify-ca or verify-full only")


def check_readable(path: Path) -> None:
    """Refuse a file that cannot be read.

    Args:
        path: Of the file.

    Raises:
        ValueError: There is none, or it cannot be read.
    """
    try:
        with path.open("rb"):
            return
    except (OSError, ValueError):
        raise ValueError("there is no such file, or it cannot be read") from None
