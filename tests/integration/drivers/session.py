"""A session of PostgreSQL that tells what each statement changes on it."""

from pathlib import Path

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import make_url
from tests.integration.drivers.statements import PREPARATIONS, ROWS

from penstock.drivers.effects import Effect, effects_of

STATE = Path(__file__).with_name("session_state.sql").read_text()
"""A query for all that a session remembers, as pairs."""
LEFT = Effect.SESSION | Effect.LASTING | Effect.CONTROL


class Session:
    """A session, which begins anew when a statement has left something on it.

    Attributes:
        error: What came of the latest statement, None where it was done.
    """

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql").render_as_string(False)
        self._connection = self._connect()
        self._state = self._fingerprint()

    def prepare(self) -> None:
        """Make the tables and functions of the statements anew."""
        self._connection.execute(PREPARATIONS.encode())
        self._connection.execute(ROWS.encode())

    def changes(self, statement: str) -> set[str]:
        """Run one statement, come what may, and return the kinds of state that it changed."""
        self.error: Exception | None = None
        if not statement.startswith("SELECT") or "made" in statement:
            self._connection.execute(ROWS.encode())
        try:
            self._connection.execute(statement.encode())
        except psycopg.Error as error:
            self.error = error
        if changed := self._changed():
            self._begin_anew()
        return changed

    def changes_foretold(self, statement: str) -> set[str]:
        """Run a statement, hold what it changed against its effects, and return it."""
        effects, changed = effects_of(statement), self.changes(statement)
        if changed:
            assert effects & LEFT, (statement, changed)
        if "prepared" in changed:
            assert effects & Effect.LASTING, statement
        if "transaction" in changed:
            assert effects & Effect.CONTROL, statement
        return changed

    def close(self) -> None:
        """End the session."""
        self._connection.close()

    def _changed(self) -> set[str]:
        if self._connection.info.transaction_status is not TransactionStatus.IDLE:
            return {"transaction"}
        return {str(name) for name, _ in self._state ^ self._fingerprint()}

    def _begin_anew(self) -> None:
        self._connection.rollback()
        self._connection.execute("DISCARD ALL")
        if self._changed():
            self.close()
            self._connection = self._connect()
            self._state = self._fingerprint()

    def _fingerprint(self) -> set[tuple[str, str]]:
        return {(name, value) for name, value in self._connection.execute(STATE.encode())}

    def _connect(self) -> psycopg.Connection:
        # DISCARD ALL would drop statements that the driver has prepared.
        return psycopg.connect(self._url, autocommit=True, prepare_threshold=None)
