"""What a statement may leave behind on its session, by its text."""

import pytest

from penstock.drivers.effects import Effect, effects_of


@pytest.mark.parametrize(
    ("statement", "effects"),
    [
        ("", Effect.NONE),
        ("SELECT 1", Effect.READS),
        ("((SELECT 1))", Effect.READS),
        ("SELECT lower(a), count(*) FROM t WHERE a IN ($1, $2);", Effect.READS),
        ("SELECT my_function(1)", Effect.SESSION | Effect.READS),
        ("SELECT set_config('app.tenant', $1, true)", Effect.READS),
        ("SELECT set_config('app.tenant', $1, $2)", Effect.SESSION | Effect.READS),
        ("SET LOCAL app.tenant = '5'", Effect.NONE),
        ("SET local.tenant = '5'", Effect.SESSION),
        ("SET search_path = a", Effect.SESSION),
        ("PREPARE a AS SELECT 1", Effect.SESSION | Effect.PREPARED),
        ("PREPARE TRANSACTION 'a'", Effect.CONTROL),
        ("ROLLBACK TO SAVEPOINT a", Effect.CONTROL),
        ("SELECT 1; SELECT 2", Effect.SEVERAL),
        ("SELECT 'open", Effect.SESSION | Effect.SEVERAL),
        ("UPDATE pg_settings SET setting = 'a'", Effect.SESSION),
    ],
)
def test_the_effects_of_a_statement(statement: str, effects: Effect) -> None:
    assert effects_of(statement) == effects
