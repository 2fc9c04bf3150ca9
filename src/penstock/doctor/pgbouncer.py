"""PgBouncer's admin console, which speaks the simple protocol alone."""

from collections.abc import Sequence

from penstock.base_error import PenstockError
from penstock.doctor.check import Check, Query, Rows
from penstock.doctor.examination import Result, evaluate

CONNECT_SECONDS = 5


async def examine_pgbouncer(url: str, checks: Sequence[Check]) -> tuple[Result, ...]:
    """Run checks on a PgBouncer; needs psycopg.

    Args:
        url: Of its console, such as ``postgresql://admin:password@host:6432/pgbouncer``.
        checks: Those that its console can answer.

    Raises:
        PenstockError: The console cannot be reached.
    """
    answers = await _answers(url, list(dict.fromkeys(check.query for check in checks)))
    return evaluate(checks, answers, {"sees_all_sessions": True})


async def _answers(url: str, queries: Sequence[Query]) -> dict[Query, Rows | str]:
    import psycopg  # noqa: PLC0415 - it comes with an extra
    from psycopg.rows import dict_row  # noqa: PLC0415 - so does this

    answers: dict[Query, Rows | str] = {}
    try:
        connection = await psycopg.AsyncConnection.connect(
            url, autocommit=True, connect_timeout=CONNECT_SECONDS, row_factory=dict_row
        )
    except psycopg.Error as error:
        raise PenstockError(f"PgBouncer's console cannot be reached: {_line(error)}") from None
    async with connection:
        for query in queries:
            try:
                cursor = await connection.execute(query.name.encode())
                answers[query] = await cursor.fetchall()
            except psycopg.Error as error:
                answers[query] = _line(error)
    return answers


def _line(error: Exception) -> str:
    return ". ".join(line.strip().rstrip(".") for line in str(error).splitlines() if line.strip())
