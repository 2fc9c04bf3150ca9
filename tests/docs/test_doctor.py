"""The doctor's page lists the checks that there are, as they describe themselves."""

import os
from pathlib import Path

from penstock.doctor import CHECKS, GROUPS, SLOW_ROUTES, DeclaredPools, declared_checks

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"
BEGIN = "<!-- checks: tests/docs/test_doctor.py writes and checks them -->\n"
END = "<!-- end of checks -->\n"
DECLARED = declared_checks(DeclaredPools("app", 1, 1, 5, 10))


def tables() -> str:
    groups = {**GROUPS, "A service": (*DECLARED, SLOW_ROUTES)}
    return (
        "\n"
        + "\n".join(
            f"### {heading}\n\n| check | looks at | reports |\n|---|---|---|\n"
            + "".join(f"| `{each.id}` | {each.title} | {each.reports} |\n" for each in checks)
            for heading, checks in groups.items()
        )
        + "\n"
    )


def test_the_page_lists_every_check() -> None:
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    written, end, after = rest.partition(END)
    assert begin
    assert end
    if os.environ.get("WRITE_CHECKS"):
        PAGE.write_text(before + begin + tables() + end + after, encoding="utf-8")
    else:
        assert written == tables(), "run this test with WRITE_CHECKS=1"


def test_each_check_has_an_id_of_its_own() -> None:
    ids = [check.id for checks in GROUPS.values() for check in checks]

    assert len(ids) == len(set(ids)) == len(CHECKS)
    assert len(ids) >= 100


def test_each_query_says_what_it_is_and_is_asked() -> None:
    folder = PAGE.parents[1] / "src/penstock/doctor/sql"
    named = {check.query.name for check in CHECKS.values() if not check.query.of_pgbouncer}
    files = {path.stem for path in folder.glob("*.sql")}

    assert files == named | {"server", "idle", "end_idle", SLOW_ROUTES.query.name}
    for path in folder.glob("*.sql"):
        assert path.read_text(encoding="utf-8").startswith(f"-- {path.stem}: ")
