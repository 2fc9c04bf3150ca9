"""TCP keepalive: a server that went away without a word is noticed."""

import socket
import sys
from collections.abc import Mapping

__all__ = ["INTERVAL", "PROBES", "USER_TIMEOUT", "keep_alive", "libpq_keepalive"]

# Once a connection has been silent for tcp_keepalive, four probes 15 s apart: a server that
# answers none of them for a minute is gone. A restart or a failover is usually over sooner.
INTERVAL = 15
PROBES = 4

# Seconds that data which was sent may go unacknowledged; Linux alone would retry for about a
# quarter of an hour (tcp(7), tcp_retries2). The same minute as the probes', and the same as the
# default of command_timeout. Where it is set it also ends the probing: Linux closes a connection
# that has been silent for longer than it and has left one probe unanswered.
USER_TIMEOUT = 60


def keep_alive(connected: socket.socket, idle: int) -> None:
    """Switch keepalive on for a connected socket; a Unix socket is left as it is.

    Args:
        connected: The driver's socket, or uvloop's stand-in for it.
        idle: Seconds of silence before the first probe.

    Raises:
        OSError: The socket was closed meanwhile.
    """
    if connected.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _tcp_options(idle).items():
        connected.setsockopt(socket.IPPROTO_TCP, option, value)


def libpq_keepalive(idle: int) -> Mapping[str, int]:
    """Return the same as parameters of libpq, which ignores them on a Unix socket.

    Args:
        idle: Seconds of silence before the first probe.

    Returns:
        Parameters by name, as in PostgreSQL's "Parameter Key Words".
    """
    return {
        "keepalives": 1,
        "keepalives_idle": idle,
        "keepalives_interval": INTERVAL,
        "keepalives_count": PROBES,
        "tcp_user_timeout": USER_TIMEOUT * 1000,
    }


def _tcp_options(idle: int) -> Mapping[int, int]:
    if sys.platform == "darwin":
        return {
            socket.TCP_KEEPALIVE: idle,
            socket.TCP_KEEPINTVL: INTERVAL,
            socket.TCP_KEEPCNT: PROBES,
        }
    options = {
        socket.TCP_KEEPIDLE: idle,
        socket.TCP_KEEPINTVL: INTERVAL,
        socket.TCP_KEEPCNT: PROBES,
    }
    if sys.platform == "linux":
        options[socket.TCP_USER_TIMEOUT] = USER_TIMEOUT * 1000
    return options
