"""The live document: what the live page and ``penstock watch`` show of a database, as JSON."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from math import isfinite
from typing import Any

from penstock.findings import Finding
from penstock.telemetry.reading import Reading
from penstock.telemetry.schema import COUNTERS, HISTOGRAMS, Histogram, Sample

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
) -> dict[str, Any]:
    """Return all that is shown of one database.

    Args:
        name: The database's name in ``install``.
        reading: The numbers of its workers.
        findings: What the rules found in it.
        recent: The times of about the last minute, as :class:`RecentTimes` gives them.
        since: Unix time of the last whole second that the history leaves out; 0 for none.

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
        return round(value, _DIGITS) if isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value
