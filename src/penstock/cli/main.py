"""The entry point of the ``penstock`` command."""

import signal
import sys

from penstock.base_error import PenstockError
from penstock.cli.extras import needs_extra


def main() -> None:
    """Run the command line.

    An error of penstock's own is one message on standard error and the exit status 1; Ctrl-C,
    also while modules are imported, is the status 130.
    """
    try:
        with needs_extra("cli"):
            from penstock.cli.commands import app  # noqa: PLC0415 - typer may be missing
        app(prog_name="penstock")
    except PenstockError as error:
        sys.stderr.write(f"penstock: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
