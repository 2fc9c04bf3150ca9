"""What an install without its extra answers."""

from collections.abc import Iterator
from contextlib import contextmanager

from penstock.base_error import PenstockError


class MissingExtraError(PenstockError):
    """A command needs packages that are installed with an extra of penstock."""


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Explain a missing package inside the block by the extra that brings it.

    Args:
        extra: Its name, as in ``penstock[demo]``.

    Raises:
        MissingExtraError: A package other than penstock itself could not be found.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "penstock":
            raise
        raise MissingExtraError(
            f"This needs the package {error.name}, which is not installed. Install it with\n"
            f"  pip install 'penstock[{extra}]'"
        ) from error
