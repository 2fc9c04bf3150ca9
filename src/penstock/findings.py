"""What a check has to say: the one form in which every room reports a problem."""

from dataclasses import dataclass
from enum import StrEnum


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
