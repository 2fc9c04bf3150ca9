"""How long things took within about the last minute, of durations that are counted for ever."""

from collections import deque
from typing import Any

from penstock.fastapi.live_document import time_document
from penstock.telemetry.reading import Reading
from penstock.telemetry.schema import HISTOGRAMS, Histogram

_Moment = tuple[float, dict[str, Histogram]]


class RecentTimes:
    """Remembers what had been counted at each of the last looks, and says what has come since.

    Args:
        seconds: How far it looks back.
    """

    def __init__(self, seconds: float = 60.0) -> None:
        self._seconds = seconds
        self._looks: deque[_Moment] = deque()

    def look(self, at: float, reading: Reading) -> dict[str, Any]:
        """Note what ``reading`` has counted.

        Args:
            at: The moment, in seconds of any clock that only goes forward.
            reading: What the workers say.

        Returns:
            ``seconds``, since the oldest look that is not older than the span, 0.0 at first; and
            for each of ``HISTOGRAMS`` what the live document says of it, counted since then.
        """
        now = {name: reading.histogram(name) for name in HISTOGRAMS}
        self._looks.append((at, now))
        while self._looks[0][0] < at - self._seconds:
            self._looks.popleft()
        then, before = self._looks[0]
        times = {name: time_document(_since(before[name], now[name])) for name in HISTOGRAMS}
        return {"seconds": at - then, **times}


def _since(before: Histogram, now: Histogram) -> Histogram:
    counts = tuple(max(0, new - old) for old, new in zip(before.counts, now.counts, strict=True))
    return Histogram(counts, max(0.0, now.seconds - before.seconds))
