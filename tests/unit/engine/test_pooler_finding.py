"""What is said of a pool that does not suit the pooler in between."""

import pytest

from penstock.engine.pooler import Pooler, pooler_finding
from penstock.settings import DatabaseSettings

URL = "postgresql://user:password@localhost/app"
FOUND = Pooler("1.26.1", "transaction")


@pytest.mark.parametrize(
    ("pooler", "settings", "expected"),
    [
        (None, {}, None),
        (None, {"proxy": "aws-nlb"}, None),
        (None, {"proxy": "pgbouncer"}, None),
        (None, {"proxy": "pgbouncer", "max_overflow": 7}, "overflow-behind-pooler"),
        (None, {"proxy": "aws-nlb,neon", "max_overflow": 7}, "overflow-behind-pooler"),
        (None, {"proxy": "pgbouncer", "preset": "medium"}, None),
        (None, {"proxy": "pgbouncer", "max_overflow": 7, "environment": "serverless"}, None),
        (FOUND, {}, "unnamed-pooler"),
        (FOUND, {"max_overflow": 0}, "unnamed-pooler"),
        (FOUND, {"proxy": "aws-nlb"}, "unnamed-pooler"),
        (FOUND, {"proxy": "supavisor"}, None),
        (FOUND, {"proxy": "supavisor", "max_overflow": 7}, "overflow-behind-pooler"),
        (FOUND, {"proxy": "supavisor-session"}, "misnamed-pooler"),
        (FOUND, {"proxy": "aws-nlb,aws-rds-proxy"}, "misnamed-pooler"),
        (FOUND, {"proxy": "pgpool,pgbouncer"}, None),
        (Pooler("1.26.1", "session"), {"proxy": "pgpool"}, None),
        (Pooler(), {"proxy": "pgpool"}, None),
    ],
)
def test_a_pooler_wants_a_name_and_no_overflow(
    pooler: Pooler | None, settings: dict[str, object], expected: str | None
) -> None:
    given = DatabaseSettings.of(URL, **settings)
    finding = pooler_finding(pooler, given)

    assert (finding and finding.id) == expected
    if finding is not None:
        if finding.id != "misnamed-pooler":
            assert f"max_overflow={given.max_overflow}" in finding.evidence
            assert "max_overflow=0" in finding.remedy
        assert finding.id == "overflow-behind-pooler" or str(pooler) in finding.evidence
