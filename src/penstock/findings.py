"""What a check has to say: the one form in which every room reports a problem."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import ceil


class Severity(StrEnum):
    """How soon to act on a finding."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Finding:
    """One observation about a system.

    Args:
        id: Stable name, such as ``connection-budget``, under which the docs explain it.
        severity: How soon to act.
        evidence: What was seen, with its numbers.
        remedy: What to do, naming the setting and a value.
    """

    id: str
    severity: Severity
    evidence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.id}: {self.evidence} {self.remedy}"


def most_severe_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings in the order in which to act on them."""
    ascending = tuple(Severity)
    return tuple(sorted(findings, key=lambda finding: -ascending.index(finding.severity)))


def exit_status(severities: Iterable[str]) -> int:
    """Return how a command ends: 0 without a warning, 1 with one, 2 where something is critical."""
    found = set(severities)
    return 2 if Severity.CRITICAL in found else int(Severity.WARNING in found)


def number_of(count: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 request`` or ``2 requests``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def bounded(value: float, least: int, most: int) -> int:
    """Return a number to propose, rounded up and limited to a range.

    Args:
        value: The number; NaN counts as too large.
        least: Lower limit.
        most: Upper limit.
    """
    return ceil(max(least, value)) if value < most else most
