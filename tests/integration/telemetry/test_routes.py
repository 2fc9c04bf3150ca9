"""How the leases of a service are distinguished by route."""

from pathlib import Path

from fastapi import FastAPI, Request, Response
from httpx import ASGITransport, AsyncClient
from sqlalchemy import text
from starlette.middleware.base import RequestResponseEndpoint

from penstock import Database, query
from penstock.fastapi import install

ONE = query(text("SELECT 1 AS one"))


async def test_methods_that_clients_make_up_are_no_routes_of_their_own(
    database_url: str, tmp_path: Path
) -> None:
    app = FastAPI()
    database = Database.from_url(database_url, environment="testing", telemetry_dir=tmp_path)
    install(app, database)

    @app.middleware("http")
    async def look_first(request: Request, call_next: RequestResponseEndpoint) -> Response:
        await database.reader.one(ONE)
        return await call_next(request)

    # Not every server lets such a request through.
    caller = AsyncClient(transport=ASGITransport(app), base_url="http://service")
    async with app.router.lifespan_context(app), caller as client:
        for number in range(3):
            await client.request(f"MADEUP{number}", "/nowhere")
        await client.get("/nowhere")
        routes = {use.route: use.checkouts for use in database.telemetry.read().routes}

    assert routes["_OTHER (no route)"] == 3
    assert routes["GET (no route)"] == 1
    assert not any("MADEUP" in route for route in routes)
