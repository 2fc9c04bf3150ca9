"""Where the demo tells about itself."""

import errno
import os

from rich.console import Console


class Terminal(Console):
    """Standard output, which may go away before the demo does."""

    def on_broken_pipe(self) -> None:
        """Let the error out, so that everything is put away; rich would end the process here."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
