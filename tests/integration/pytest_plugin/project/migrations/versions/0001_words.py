import os

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "words",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("text", sa.String(), nullable=False, unique=True),
    )
    if "BREAKS" in os.environ:
        op.execute("SELECT there_is_no_such_function()")
    with open(os.environ["MIGRATED"], "a") as times:  # noqa: PTH123 - a migration is a script
        times.write("once\n")
