"""What the demo measured, for programs."""

from dataclasses import asdict, dataclass
from typing import Any

from penstock.demo.pool_watch import PoolPeaks
from penstock.load import Figures, LoadResult

__all__ = ["DemoFigures"]

_DECIMALS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoFigures:
    """The outcome of a demo.

    Args:
        database: What the users were kept in.
        server_version: Its version.
        workers: Processes that served.
        users: Users at the start of the load run.
        clients: Requests under way at once.
        start_seconds: From nothing to the first answer of the service.
        load: The load run.
        pool: The workers' pools during it.
    """

    database: str
    server_version: str
    workers: int
    users: int
    clients: int
    start_seconds: float
    load: LoadResult
    pool: PoolPeaks

    @property
    def flawless(self) -> bool:
        """Whether every request succeeded."""
        return self.load.total.successes == self.load.total.requests

    def as_json(self) -> dict[str, Any]:
        """Return everything as values that JSON knows; durations in the unit of their name."""
        return {
            "database": {"kind": self.database, "server_version": self.server_version},
            "workers": self.workers,
            "users": self.users,
            "clients": self.clients,
            "start_seconds": round(self.start_seconds, _DECIMALS),
            "seconds": round(self.load.seconds, _DECIMALS),
            **_figures(self.load.total),
            "kinds": {name: _figures(figures) for name, figures in self.load.kinds.items()},
            "pool": asdict(self.pool),
        }


def _figures(figures: Figures) -> dict[str, Any]:
    return {
        "requests": figures.requests,
        "successes": figures.successes,
        "success_rate": figures.success_rate,
        "errors": dict(figures.errors),
        "requests_per_second": round(figures.requests_per_second, _DECIMALS),
        "p50_ms": _rounded(figures.p50_ms),
        "p90_ms": _rounded(figures.p90_ms),
        "p99_ms": _rounded(figures.p99_ms),
        "max_ms": _rounded(figures.max_ms),
    }


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, _DECIMALS)
