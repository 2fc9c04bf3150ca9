"""Policies that are chosen by name."""

from enum import StrEnum

__all__ = ["BudgetPolicy", "IsolationLevel", "NestedCheckoutPolicy", "TlsMode"]


class TlsMode(StrEnum):
    """How a connection is encrypted, by libpq's names for ``sslmode``.

    PostgreSQL's documentation, "SSL Support", says what each protects against. Its ``allow``
    is left out: it prefers a connection in the clear.
    """

    DISABLE = "disable"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"

    @property
    def verifies(self) -> bool:
        """Whether the server's certificate is checked against trusted authorities."""
        return self in {TlsMode.VERIFY_CA, TlsMode.VERIFY_FULL}


class BudgetPolicy(StrEnum):
    """What happens at start when all workers together want more connections than there are."""

    WARN = "warn"
    REFUSE = "refuse"
    OFF = "off"


class IsolationLevel(StrEnum):
    """The isolation level of a transaction, as SQLAlchemy spells it."""

    READ_UNCOMMITTED = "READ UNCOMMITTED"
    READ_COMMITTED = "READ COMMITTED"
    REPEATABLE_READ = "REPEATABLE READ"
    SERIALIZABLE = "SERIALIZABLE"


class NestedCheckoutPolicy(StrEnum):
    """What is done with a task that holds a connection and waits for another."""

    REFUSE = "refuse"
    WARN = "warn"
    ALLOW = "allow"
