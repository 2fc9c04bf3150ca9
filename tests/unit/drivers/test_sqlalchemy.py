"""What SQLAlchemy makes of its constructs leaves nothing on a session."""

import pytest
from sqlalchemy import ClauseElement, Dialect, make_url
from tests.unit.drivers.constructs import BATCHES, STATEMENTS

from penstock.drivers.effects import Effect, effects_of

DIALECTS: dict[str, Dialect] = {
    driver: make_url(f"postgresql+{driver}://").get_dialect()() for driver in ("asyncpg", "psycopg")
}
CONSTRUCTS = {**STATEMENTS, **{f"batch: {name}": batch[0] for name, batch in BATCHES.items()}}


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
@pytest.mark.parametrize("statement", CONSTRUCTS.values(), ids=CONSTRUCTS)
def test_a_statement_of_sqlalchemy_leaves_nothing(
    statement: ClauseElement, dialect: Dialect
) -> None:
    text = str(statement.compile(dialect=dialect))

    assert effects_of(text) & ~(Effect.READS | Effect.TRANSACTION) == Effect.NONE, text
