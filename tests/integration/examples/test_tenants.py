"""The documentation's service of several tenants, as it stands there."""

import runpy
from pathlib import Path

import pytest
from tests.servers.web import client_of

TENANTS = Path(__file__).parents[3] / "examples" / "tenants.py"


async def test_a_tenant_sees_its_own_notes_and_without_one_there_is_no_answer(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("DATABASE_REQUIRES_CONTEXT", "app.tenant")
    module = runpy.run_path(str(TENANTS))
    await module["create_tables"]()

    async with client_of(module["app"]) as client:
        for tenant in ("red", "blue"):
            answer = await client.post(f"/notes?line={tenant}s", headers={"x-tenant": tenant})
            assert answer.status_code == 201
        seen = [
            (await client.get("/notes", headers={"x-tenant": tenant})).json()
            for tenant in ("red", "blue", "green")
        ]
        nobody = await client.get("/notes")
    await module["database"].close()

    assert seen == [["reds"], ["blues"], []]
    assert nobody.status_code == 401
