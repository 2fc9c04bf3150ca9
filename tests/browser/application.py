"""The application that the tests of the live page put under load."""

import os

from fastapi import FastAPI
from sqlalchemy import text

from penstock import Database
from penstock.fastapi import ReadSession, install

HOSTILE = '/<img src=x onerror="window.harmed = true">/<script>window.harmed = true</script>'
"""A route's path that would run if it were taken for HTML."""

LONG = ", ".join(f"'a column of a long statement' AS column_{number}" for number in range(6))


def create_app() -> FastAPI:
    """Return the application, on the database and the telemetry directory of the environment."""
    app = FastAPI()
    for name, size in (("default", 4), ("analytics", 1)):
        database = Database.from_url(
            os.environ["LIVE_DATABASE_URL"],
            environment="testing",
            pool_size=size,
            max_overflow=size,
            pool_timeout=2,
            application_name=f"live page {name}",
            telemetry_dir=os.environ["LIVE_TELEMETRY_DIR"],
        )
        install(app, database, name=name)
    _add_routes(app)
    return app


def _add_routes(app: FastAPI) -> None:
    @app.get("/users/{user_id}")
    async def one(user_id: int, session: ReadSession) -> int:
        return int(await session.scalar(text("SELECT 1 + :n").bindparams(n=user_id)))

    @app.get("/reports/{seconds}")
    async def report(seconds: float, session: ReadSession) -> None:
        await session.execute(text(f"SELECT pg_sleep(:n), {LONG}").bindparams(n=seconds))

    @app.get(HOSTILE)
    async def hostile(session: ReadSession) -> None:
        await session.execute(text("SELECT pg_sleep(0.11), '<img src=x onerror=harm()>'"))

    for number in range(50):
        _add_one_of_many(app, number)


def _add_one_of_many(app: FastAPI, number: int) -> None:
    @app.get(f"/tenants/{{tenant_id}}/orders/of/kind/{number}")
    async def of_kind(tenant_id: int, session: ReadSession) -> None:
        await session.execute(text("SELECT 1"))
