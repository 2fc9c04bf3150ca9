"""A command in a terminal of its own, of which is kept what it writes."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

SECONDS = 30.0
SEQUENCES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class PseudoTerminal:
    """Runs a command in 80 columns and 24 lines for the length of a block.

    Args:
        command: Program and arguments.
        environment: Its variables.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.output = ""
        self._ours, theirs = pty.openpty()
        self.resize(80, 24)
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, text: str, times: int = 1) -> str:
        """Return what is written from now on until ``text`` is in it; fail if it does not come."""
        begun = len(self.output)
        deadline = time.monotonic() + SECONDS
        while self.output.count(text, begun) < times:
            written = self._read(deadline)
            assert written, f"no {text!r} in {self.output[begun:]!r}"
            self.output += written
        return self.output[begun:]

    def rest(self) -> str:
        """Return what is written from now on until the command ends."""
        begun = len(self.output)
        deadline = time.monotonic() + SECONDS
        while written := self._read(deadline):
            self.output += written
        self.process.wait(SECONDS)
        return self.output[begun:]

    def frames(self) -> list[list[str]]:
        """Return the lines of each screen that was drawn, without colours."""
        return [
            [line.rstrip() for line in SEQUENCES.sub("", frame).replace("\r", "").split("\n")]
            for frame in self.output.partition("\x1b[?1049l")[0].split("\x1b[H")[1:]
        ]

    def _read(self, deadline: float) -> str:
        ready, _, _ = select.select([self._ours], [], [], max(deadline - time.monotonic(), 0))
        try:
            return os.read(self._ours, 65536).decode(errors="replace") if ready else ""
        except OSError:  # how Linux reports that nobody writes any more
            return ""
