"""The process that runs the users service's workers: ``python -m penstock.demo.supervisor``.

It is given the descriptor of a listening socket and the number of workers. It ends when its
standard input closes, which happens when the demo stops it and when the demo is gone.
"""

import os
import shutil
import signal
import socket
import sys
import threading
from pathlib import Path

import uvicorn
from uvicorn.supervisors import Multiprocess

_GRACEFUL_SECONDS = 5


def main() -> None:
    """Serve until standard input closes, then remove the directory that this was started in."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    config = uvicorn.Config(
        "penstock.demo.users:create_app",
        factory=True,
        workers=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
    )
    supervisor = Multiprocess(config, sockets=[listener])
    abandoned = threading.Event()
    threading.Thread(target=_end_with_input, args=[abandoned], daemon=True).start()
    supervisor.run()
    if abandoned.is_set():
        shutil.rmtree(Path.cwd(), ignore_errors=True)


def _end_with_input(abandoned: threading.Event) -> None:
    sys.stdin.buffer.read()
    abandoned.set()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
