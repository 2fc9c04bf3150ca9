"""Whatever a statement changes on a real session is foretold by its text."""

import itertools
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import make_url
from tests.integration.drivers.session import Session
from tests.integration.drivers.statements import (
    CALLS,
    COMMANDS,
    HARMLESS,
    SHAPES,
    SPELLINGS,
)
from tests.servers.postgres import PostgresServer

from penstock.drivers.effects import Effect, effects_of

Spelling = Callable[[str], str]


@pytest.fixture(scope="module")
def session(postgres: PostgresServer) -> Iterator[Session]:
    """A session of a superuser in a database with what the statements need."""
    [(is_new,)] = postgres.execute("SELECT current_setting('server_version_num')::int >= 170000")
    if not is_new:
        pytest.skip("the statements are those of PostgreSQL 17 and later")
    with postgres.database() as url:
        database = make_url(url).database or ""
        postgres.execute("CREATE ROLE someone")
        session = Session(postgres.url(database))
        try:
            yield session
        finally:
            session.close()
            postgres.execute("DROP OWNED BY someone; DROP ROLE someone", database)


@pytest.fixture(autouse=True)
def _prepared(session: Session) -> None:
    session.prepare()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_state_that_a_call_leaves_is_foretold_wherever_it_stands(
    session: Session, shape: str
) -> None:
    spellings = itertools.cycle(SPELLINGS.values())
    statements = [next(spellings)(shape.format(call)) for call in CALLS]

    left = [session.changes_foretold(statement) for statement in statements]

    assert sum(map(bool, left)) > len(CALLS) * 0.8


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_state_that_a_command_leaves_is_foretold(session: Session, spelling: Spelling) -> None:
    for command in COMMANDS:
        assert session.changes_foretold(spelling(command)), (command, session.error)


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_what_leaves_nothing_is_known_to(session: Session, spelling: Spelling) -> None:
    for statement in map(spelling, HARMLESS):
        assert effects_of(statement) & ~(Effect.READS | Effect.TRANSACTION) == Effect.NONE, (
            statement
        )
        assert session.changes(statement) == set(), statement
        assert session.error is None, (statement, session.error)
