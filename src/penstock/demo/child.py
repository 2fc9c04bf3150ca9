"""A process that the demo starts, watches, and never leaves behind."""

import asyncio
import contextlib
import os
import pwd
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from penstock.base_error import PenstockError

_LOOK_EVERY = 0.02
_LINES_SHOWN = 20

_UNTIL_INPUT_CLOSES = """
directory=$1 signal=$2; shift 2
exec 3<&0
"$@" 3<&- &
program=$!
{ read -r _ <&3; : >"$directory/stopping"; kill -"$signal" "$program"; } &
reader=$!
wait "$program"
status=$?
kill "$reader" 2>/dev/null
[ -e "$directory/stopping" ] && rm -rf "$directory"
exit "$status"
"""


class ChildFailed(PenstockError):  # noqa: N818 - it says what happened
    """A process ended early or was not ready in time; the message has its last lines."""


class Child:
    """One process with everything it starts, in a session of its own.

    The session keeps the terminal's Ctrl-C away from it: the demo decides when it ends. Its
    standard input is a pipe that closes when the demo is gone, however that happened.

    Args:
        name: What messages call it.
        log: File for what it writes.
    """

    def __init__(self, name: str, log: Path) -> None:
        self._name = name
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._over = True

    def start(
        self,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str],
        account: pwd.struct_passwd | None = None,
        pass_fds: Sequence[int] = (),
        stdin: int = subprocess.PIPE,
    ) -> None:
        """Start it in the directory of its log.

        Args:
            command: Program and arguments.
            environment: All of its environment variables.
            account: Who it runs as; None for the demo's own user.
            pass_fds: Descriptors that it inherits besides the standard ones.
            stdin: A descriptor that it reads in place of the pipe.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - no word of it comes from outside
                command,
                cwd=self._log.parent,
                env=environment,
                extra_groups=[] if account else None,
                group=account.pw_gid if account else None,
                pass_fds=pass_fds,
                start_new_session=True,
                stderr=log,
                stdin=stdin,
                stdout=log,
                user=account.pw_uid if account else None,
            )
        self._over = False

    async def until(self, ready: Callable[[], Awaitable[bool]], seconds: float) -> None:
        """Wait until ``ready`` says so.

        Raises:
            ChildFailed: It ended, or was not ready within so many seconds.
        """
        try:
            async with asyncio.timeout(seconds):
                while not await ready():
                    if self._ended():
                        raise ChildFailed(f"{self._name} ended. {self._last_lines()}")
                    await asyncio.sleep(_LOOK_EVERY)
        except TimeoutError:
            raise ChildFailed(
                f"{self._name} was not ready within {seconds:g} s. {self._last_lines()}"
            ) from None

    async def completion(self, seconds: float) -> None:
        """Wait until it has done its work.

        Raises:
            ChildFailed: It returned something other than 0, or took longer.
        """
        try:
            async with asyncio.timeout(seconds):
                await self.end()
        except TimeoutError:
            raise ChildFailed(f"{self._name} took longer than {seconds:g} s.") from None
        if self._process is not None and self._process.returncode:
            raise ChildFailed(f"{self._name} failed. {self._last_lines()}")

    async def end(self) -> None:
        """Wait until it has ended, for whatever reason."""
        while not self._ended():  # noqa: ASYNC110 - a thread in waitpid could not be cancelled
            await asyncio.sleep(_LOOK_EVERY)

    def detach(self) -> None:
        """Leave it running when this process ends."""
        if self._process is not None:
            self._process.returncode = 0  # or Popen would warn that it has not seen its end

    async def stop(self, seconds: float) -> None:
        """Ask it to end by closing its standard input; kill what is left.

        Args:
            seconds: How long it may take to end by itself.
        """
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(seconds):
                await self.end()
        except TimeoutError:
            self._kill(self._process)
            self._process.wait()

    def _ended(self) -> bool:
        if self._process is not None and not self._over and self._process.poll() is not None:
            self._over = True
            self._kill(self._process)
        return self._over

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the session; at once when it loses its leader, whose number is then free again."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    def _last_lines(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(["It wrote:", *lines[-_LINES_SHOWN:]]) if lines else "It wrote nothing."


def until_input_closes(
    command: Sequence[str | Path], directory: Path, *, signal: str
) -> list[str | Path]:
    """Return a command that runs another until its standard input closes.

    Where that is a pipe, it closes when its only holder closes it, and also when that is killed. A
    program that ends by itself leaves its directory behind, with what it wrote there.

    Args:
        command: Program and arguments.
        directory: The program's own, removed after it was stopped.
        signal: What stops the program, without its ``SIG``.
    """
    return ["/bin/sh", "-c", _UNTIL_INPUT_CLOSES, "sh", directory, signal, *command]
