"""The rows that the rules are tested with have the columns that a server returns."""

import pytest
from tests.servers.postgres import PostgresServer
from tests.unit.doctor.rows import HEALTHY

from penstock.doctor import CHECKS

QUERIES = {check.query.name: check.query for check in CHECKS.values()}


@pytest.mark.parametrize("name", sorted(HEALTHY))
def test_rows_have_the_columns_of_their_query(name: str, provoked: PostgresServer) -> None:
    if int(str(provoked.execute("SHOW server_version_num")[0][0])) < QUERIES[name].since * 10000:
        pytest.skip(f"only PostgreSQL {QUERIES[name].since} tells")
    provoked.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    provoked.execute(f"CREATE OR REPLACE VIEW columns_of AS {QUERIES[name].sql}")
    columns = provoked.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'columns_of'::regclass AND attnum > 0"
    )
    provoked.execute("DROP VIEW columns_of")

    assert {column for (column,) in columns} == set(HEALTHY[name])
