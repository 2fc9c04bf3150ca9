import pytest
from alembic import command
from alembic.config import Config


def test_the_migrations_make_what_the_models_say(
    penstock_url: str, pytestconfig: pytest.Config
) -> None:
    command.check(Config(pytestconfig.rootpath / "alembic.ini"))
