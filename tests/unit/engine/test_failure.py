"""Why a connect failed, from what the drivers raise."""

import pickle
import socket
import ssl

import asyncpg
import pymysql  # type: ignore[import-untyped]  # it ships no types
import pytest
from psycopg import OperationalError

from penstock.pool import ConnectFailed, FailureReason
from penstock.pool.errors import reason_of


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (asyncpg.InvalidPasswordError("no"), FailureReason.AUTHENTICATION),
        (asyncpg.InvalidAuthorizationSpecificationError("no"), FailureReason.AUTHENTICATION),
        (asyncpg.InvalidCatalogNameError("no"), FailureReason.UNKNOWN_DATABASE),
        (asyncpg.TooManyConnectionsError("no"), FailureReason.TOO_MANY_CONNECTIONS),
        (asyncpg.CannotConnectNowError("no"), FailureReason.NOT_READY),
        (asyncpg.ProtocolViolationError("no"), FailureReason.OTHER),
        (pymysql.OperationalError(1040, "no"), FailureReason.TOO_MANY_CONNECTIONS),
        (pymysql.OperationalError(1045, "no"), FailureReason.AUTHENTICATION),
        (pymysql.OperationalError(1049, "no"), FailureReason.UNKNOWN_DATABASE),
        (pymysql.OperationalError(4711, "no"), FailureReason.OTHER),
        (ConnectionRefusedError(111, "no"), FailureReason.UNREACHABLE),
        (socket.gaierror(-2, "no"), FailureReason.UNREACHABLE),
        (TimeoutError(110, "no"), FailureReason.UNREACHABLE),
        (ConnectionError("the server rejected SSL upgrade"), FailureReason.TLS),
        (ssl.SSLCertVerificationError(1, "no"), FailureReason.TLS),
        (ValueError("no"), FailureReason.OTHER),
        (ValueError(), FailureReason.OTHER),
    ],
)
def test_the_drivers_errors_have_a_reason(error: Exception, reason: FailureReason) -> None:
    assert reason_of(error) is reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('FATAL:  password authentication failed for user "app"', FailureReason.AUTHENTICATION),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.9"', FailureReason.AUTHENTICATION),
        ('FATAL:  role "app" does not exist', FailureReason.AUTHENTICATION),
        ('FATAL:  role "app" is not permitted to log in', FailureReason.AUTHENTICATION),
        ('FATAL:  database "app" does not exist', FailureReason.UNKNOWN_DATABASE),
        ("FATAL:  sorry, too many clients already", FailureReason.TOO_MANY_CONNECTIONS),
        (
            "FATAL:  remaining connection slots are reserved for superusers",
            FailureReason.TOO_MANY_CONNECTIONS,
        ),
        ('FATAL:  too many connections for role "app"', FailureReason.TOO_MANY_CONNECTIONS),
        ("no more connections allowed (max_client_conn)", FailureReason.TOO_MANY_CONNECTIONS),
        (
            "client connections exceeded (max_user_client_connections)",
            FailureReason.TOO_MANY_CONNECTIONS,
        ),
        ("server login has been failing, try again later", FailureReason.NOT_READY),
        ("query_wait_timeout", FailureReason.NOT_READY),
        ("pooler is shutting down", FailureReason.NOT_READY),
        ("FATAL:  the database system is starting up", FailureReason.NOT_READY),
        ("FATAL:  the database system is in recovery mode", FailureReason.NOT_READY),
        ("server does not support SSL, but SSL was required", FailureReason.TLS),
        ("SSL error: certificate verify failed", FailureReason.TLS),
        ("failed to resolve host 'db.internal'", FailureReason.UNREACHABLE),
        ("Connection refused", FailureReason.UNREACHABLE),
        ("No route to host", FailureReason.UNREACHABLE),
        ("FATAL:  Passwort-Authentifizierung fehlgeschlagen", FailureReason.OTHER),
    ],
)
def test_libpq_s_texts_have_a_reason(text: str, reason: FailureReason) -> None:
    assert reason_of(OperationalError(text)) is reason


def test_a_reason_is_looked_for_in_the_causes() -> None:
    error = RuntimeError("could not connect")
    error.__cause__ = ConnectionRefusedError(111, "no")
    assert reason_of(error) is FailureReason.UNREACHABLE


def test_the_error_can_be_pickled() -> None:
    failed = ConnectFailed("asyncpg opened no connection", FailureReason.TIMEOUT)
    copy = pickle.loads(pickle.dumps(failed))
    assert (str(copy), copy.reason) == ("asyncpg opened no connection", FailureReason.TIMEOUT)
