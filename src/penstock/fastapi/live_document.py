"""The live document: what the live page and ``penstock watch`` show of a database, as JSON."""

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import blake2b
from threading import Lock
from typing import Any

from penstock.cluster import ClusterSnapshot
from penstock.database import Database
from penstock.fastapi.routes import Access
from penstock.findings import Finding
from penstock.telemetry import Reading, rules
from penstock.telemetry.schema import COUNTERS, HISTOGRAMS, Histogram, Sample

_PERIOD = 1.0
"""Seconds for which a document is sent to every viewer that asks: samples are one a second."""
_FINDINGS_PERIOD = 3.0
"""Seconds for which findings are shown: looking for them is half the work of a document."""
_CLOCK_STEP = 60
"""Seconds by which ``since`` may be ahead of the newest sample. Beyond that the machine's clock has
been put back, and the viewer needs the whole history."""
_KEPT = 16
"""Renderings that are kept of one document: viewers that keep up all ask for the same."""
_ROUTES = 100
_STATEMENTS = 40
_SILENT_AFTER = 5
"""Seconds without a sample after which a second counts as complete without a worker's part."""
_DIGITS = 9
_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_LABELS = {field.name: field.label for field in (*COUNTERS.values(), *HISTOGRAMS.values())}
_TROUBLES = [field.name for field in COUNTERS.values() if field.is_trouble]
_COLUMNS = (*(each.name for each in fields(Sample)), "utilisation")


def database_document(
    name: str,
    reading: Reading,
    findings: Iterable[Finding],
    recent: Mapping[str, Any],
    *,
    since: int = 0,
    cluster: ClusterSnapshot | None = None,
) -> dict[str, Any]:
    """Return all that is shown of one database.

    Args:
        name: The database's name in ``install``.
        reading: The numbers of its workers.
        findings: What the rules found in it.
        recent: The times of about the last minute, as :class:`RecentTimes` gives them.
        since: Unix time of the last whole second that the history leaves out; 0 for none.
        cluster: What this worker knows of the servers; None where there is only one.

    Returns:
        Strings, numbers, lists and dicts; durations in seconds, moments in Unix time. Numbers
        that are not known are NaN until :func:`encode` makes them null.
    """
    complete = _complete(_shortened(reading, since) if since else reading)
    history = [sample for sample in complete if int(sample.at) > since]
    return {
        **({} if since else {"growth": _growth(reading)}),
        "name": name,
        "now": _sample(reading.now),
        "history": {column: [getattr(sample, column) for sample in history] for column in _COLUMNS},
        "workers": [
            {"pid": worker.pid, "started": worker.started, "now": _sample(worker.now)}
            for worker in reading.workers
        ],
        "counters": asdict(reading.counters),
        "cluster": None if cluster is None else _cluster(cluster),
        "times": _times(reading.histogram),
        "recent": recent,
        "routes": [
            {**asdict(use), "mean": use.seconds / use.checkouts if use.checkouts else 0.0}
            for use in reading.routes[:_ROUTES]
        ],
        "statements": [asdict(use) for use in reading.statements[:_STATEMENTS]],
        "leases": [
            {"pid": worker.pid, **asdict(lease)}
            for worker in reading.workers
            for lease in worker.leases
        ],
        "findings": [asdict(finding) for finding in findings],
    }


def encode(at: float, databases: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the live document as one line of JSON, null for every number that is none.

    It says how counters and times are called, and which of the counters tell of trouble.

    Args:
        at: Unix time of the reading.
        databases: A document of each.
    """
    known = {"labels": _LABELS, "troubles": _TROUBLES}
    document = _finite({"at": at, **known, "databases": databases})
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode()


def time_document(histogram: Histogram) -> dict[str, float]:
    """Return how many durations there are, their mean and percentiles, in seconds."""
    count = histogram.count
    percentiles = {name: histogram.quantile(share) for name, share in _SHARES.items()}
    return {"count": count, "mean": histogram.seconds / count if count else 0.0, **percentiles}


def _cluster(cluster: ClusterSnapshot) -> dict[str, Any]:
    servers = [asdict(member) for member in cluster.members]
    return {"pid": os.getpid(), "timeline": cluster.timeline, "servers": servers}


def _growth(reading: Reading) -> list[dict[str, Any]]:
    """Return by how much routes and statements grew in the last 15 minutes, step by step."""
    return [
        {
            "at": step.at,
            "routes": [(name, seconds, count) for name, (count, seconds) in step.routes.items()],
            "statements": [
                (*names, seconds, count) for names, (count, seconds) in step.statements.items()
            ],
        }
        for step in reading.growth(reading.now.at)
    ]


def _times(histogram: Callable[[str], Histogram]) -> dict[str, Any]:
    return {name: time_document(histogram(name)) for name in HISTOGRAMS}


def _sample(sample: Sample) -> dict[str, float]:
    return {column: getattr(sample, column) for column in _COLUMNS}


def _shortened(reading: Reading, since: int) -> Reading:
    # Adding up 15 minutes of every worker each second, for one sample, would be most of the work.
    begin = since - 2 * _SILENT_AFTER
    workers = (
        replace(worker, history=tuple(sample for sample in worker.history if sample.at > begin))
        for worker in reading.workers
    )
    return replace(reading, workers=tuple(workers))


def _complete(reading: Reading) -> Sequence[Sample]:
    """Leave out the newest seconds, which some of the workers have not recorded yet.

    Half the workers' sum would look as if the others had stopped.
    """
    newest = [int(worker.history[-1].at) for worker in reading.workers if worker.history]
    if not newest:
        return ()
    complete = min(second for second in newest if second > max(newest) - _SILENT_AFTER)
    return [sample for sample in reading.history if int(sample.at) <= complete]


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value


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


@dataclass(frozen=True, slots=True)
class Rendered:
    """A live document as it is sent.

    Args:
        body: One line of JSON.
    """

    body: bytes
    tag: str = field(init=False)
    """Its entity tag, by which a viewer says that it has this one."""

    def __post_init__(self) -> None:
        digest = blake2b(self.body, digest_size=12).hexdigest()
        object.__setattr__(self, "tag", f'"{digest}"')


@dataclass(frozen=True, slots=True)
class _Shown:
    name: str
    reading: Reading
    findings: list[Finding]
    recent: Mapping[str, Any]
    cluster: ClusterSnapshot | None

    def document(self, since: int) -> dict[str, Any]:
        return database_document(
            self.name, self.reading, self.findings, self.recent, since=since, cluster=self.cluster
        )


class LiveDocument:
    """The document of the databases that are shown; they are read at most once a second.

    Args:
        databases: By name; read anew each time.
        access: Says which are shown.
        clock: Gives seconds that only go forward.
    """

    def __init__(
        self,
        databases: Mapping[str, Database],
        access: Access,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._databases = databases
        self._access = access
        self._clock = clock
        self._recent: dict[str, RecentTimes] = {}
        self._found: dict[str, tuple[float, list[Finding]]] = {}
        self._lock = Lock()
        self._shown: list[_Shown] = []
        self._read_at = -math.inf
        self._at = 0.0
        self._newest = 0
        self._rendered: dict[int, Rendered] = {}

    def kept(self, since: int) -> Rendered | None:
        """Return the document if it is fresh and rendered already; it takes no time.

        Args:
            since: As for :meth:`render`.
        """
        if self._clock() - self._read_at >= _PERIOD:
            return None
        return self._rendered.get(self._begin(since))

    def render(self, since: int) -> Rendered:
        """Return the document, read anew if it is a second old; in a thread.

        Args:
            since: The last second of history that the viewer has, in Unix time; 0 for none.
        """
        with self._lock:
            if self._clock() - self._read_at >= _PERIOD:
                self._read()
            begin = self._begin(since)
            if (kept := self._rendered.get(begin)) is not None:
                return kept
            documents = [shown.document(begin) for shown in self._shown]
            rendered = Rendered(encode(self._at, documents))
            if len(self._rendered) < _KEPT:
                self._rendered[begin] = rendered
            return rendered

    def _begin(self, since: int) -> int:
        return 0 if since > self._newest + _CLOCK_STEP else since

    def _read(self) -> None:
        shown = [
            self._look(name, database)
            for name, database in list(self._databases.items())
            if self._access.shows(database)
        ]
        workers = [worker for each in shown for worker in each.reading.workers]
        # A new dict: kept() may be looking into the old one.
        self._rendered = {}
        self._shown, self._at = shown, time.time()
        self._newest = int(max((worker.now.at for worker in workers), default=self._at))
        self._read_at = self._clock()

    def _look(self, name: str, database: Database) -> _Shown:
        reading = database.telemetry.read()
        recent = self._recent.setdefault(name, RecentTimes())
        times = recent.look(self._clock(), reading)
        cluster = None if database.cluster is None else database.cluster.snapshot()
        return _Shown(name, reading, self._findings(name, database, reading), times, cluster)

    def _findings(self, name: str, database: Database, reading: Reading) -> list[Finding]:
        at, found = self._found.get(name, (-math.inf, []))
        if self._clock() - at >= _FINDINGS_PERIOD:
            found = rules.find(reading, database.pooler_findings)
            self._found[name] = self._clock(), found
        return found
