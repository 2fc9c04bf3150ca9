"""Versions of PostgreSQL and PgBouncer with known faults, and majors that are not maintained."""

from dataclasses import dataclass
from datetime import date

from penstock.findings import Severity


@dataclass(frozen=True, slots=True)
class KnownFault:
    """A fault of all earlier versions of one series.

    Args:
        fixed_in: The first version without it.
        since: The first version with it.
        severity: How soon to act.
        fault: What may happen.
        source: Where it is told.
    """

    fixed_in: tuple[int, ...]
    since: tuple[int, ...]
    severity: Severity
    fault: str
    source: str

    def has(self, version: tuple[int, ...]) -> bool:
        """Return whether a version has the fault."""
        return self.since <= version < self.fixed_in


_NOTES = "https://www.postgresql.org/docs/release/{}/"
# Minor releases of each day, for the majors 14 to 18, and what the gravest fault before them was.
_RELEASES: tuple[tuple[Severity, str, tuple[tuple[int, int], ...]], ...] = (
    (
        Severity.CRITICAL,
        (
            "who may create a table or type may run any program as the server, by values that "
            "outlive their type (CVE-2026-6460)"
        ),
        ((14, 25), (15, 20), (16, 16), (17, 12), (18, 7)),
    ),
    (
        Severity.CRITICAL,
        (
            "a logical replication client may load any library; GIN indexes corrupt their table's "
            "row count"
        ),
        ((14, 24), (15, 19), (16, 15), (17, 11), (18, 6)),
    ),
    (
        Severity.CRITICAL,
        (
            "sizes that overflow let a user write beyond a buffer (CVE-2026-6473), and a client "
            "crash its process before it has logged in (CVE-2026-6479)"
        ),
        ((14, 23), (15, 18), (16, 14), (17, 10), (18, 4)),
    ),
    (
        Severity.CRITICAL,
        (
            "multibyte text and pgcrypto overrun a buffer, by which a user may run any program as "
            "the server (CVE-2026-2005, CVE-2026-2006)"
        ),
        ((14, 21), (15, 16), (16, 12), (17, 8), (18, 2)),
    ),
    (
        Severity.WARNING,
        (
            "CREATE STATISTICS asks for no right in its schema, libpq overruns buffers "
            "(CVE-2025-12817, CVE-2025-12818)"
        ),
        ((14, 20), (15, 15), (16, 11), (17, 7), (18, 1)),
    ),
    (
        Severity.CRITICAL,
        (
            "a restored dump runs what the dumped server's superuser wrote into it (CVE-2025-8714, "
            "CVE-2025-8715)"
        ),
        ((14, 19), (15, 14), (16, 10), (17, 6)),
    ),
    (
        Severity.CRITICAL,
        "text that was quoted by libpq in an invalid encoding allows SQL injection (CVE-2025-1094)",
        ((14, 16), (15, 11), (16, 7), (17, 3)),
    ),
    (
        Severity.WARNING,
        (
            "row-level security and SET ROLE of another user are kept by cached plans "
            "(CVE-2024-10976, CVE-2024-10978)"
        ),
        ((14, 14), (15, 9), (16, 5), (17, 1)),
    ),
)

POSTGRESQL = tuple(
    KnownFault(
        fixed_in=version,
        since=(version[0], 0),
        severity=severity,
        fault=fault,
        source=_NOTES.format(".".join(map(str, version))),
    )
    for severity, fault, versions in _RELEASES
    for version in versions
)
"""Newest first."""

END_OF_LIFE = {
    10: date(2022, 11, 10),
    11: date(2023, 11, 9),
    12: date(2024, 11, 21),
    13: date(2025, 11, 13),
    14: date(2026, 11, 12),
    15: date(2027, 11, 11),
    16: date(2028, 11, 9),
    17: date(2029, 11, 8),
    18: date(2030, 11, 14),
}
"""Last release of each major; https://www.postgresql.org/support/versioning/."""

_CHANGELOG = "https://www.pgbouncer.org/changelog.html"
PGBOUNCER = (
    KnownFault(
        (1, 26, 1),
        (1, 17, 0),
        Severity.CRITICAL,
        "who knows one password may log in as any other user (CVE-2026-107350)",
        _CHANGELOG,
    ),
    KnownFault(
        (1, 25, 2),
        (0, 0, 0),
        Severity.CRITICAL,
        "a client crashes it with one packet before it has logged in (CVE-2026-6664)",
        _CHANGELOG,
    ),
    KnownFault(
        (1, 25, 1),
        (1, 20, 0),
        Severity.CRITICAL,
        "a client sends a search_path with which its auth_query runs other functions "
        "(CVE-2025-12819)",
        _CHANGELOG,
    ),
    KnownFault(
        (1, 24, 1),
        (0, 0, 0),
        Severity.WARNING,
        "its default auth_query accepts passwords past their VALID UNTIL (CVE-2025-2291)",
        _CHANGELOG,
    ),
    KnownFault(
        (1, 16, 1),
        (0, 0, 0),
        Severity.WARNING,
        "with certificates, what was sent before the TLS handshake is run (CVE-2021-3935)",
        _CHANGELOG,
    ),
)
"""Newest first."""
