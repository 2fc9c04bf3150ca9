"""An application and FastAPI's own client, entered and not: ``python -m`` this, and a URL."""

import sys

from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import literal, select

from penstock import Database
from penstock.errors import PoolInAnotherLoop
from penstock.fastapi import ReadSession, install


def main() -> None:
    """Print what two entered clients are answered, and what one is told that is not."""
    app = FastAPI()
    install(app, Database.from_url(sys.argv[1], environment="testing"))

    @app.get("/")
    async def one(session: ReadSession) -> int | None:
        return await session.scalar(select(literal(1)))

    for _ in range(2):
        with TestClient(app) as client:
            _say([client.get("/").json() for _ in range(2)])

    client = TestClient(app)
    client.get("/")
    try:
        client.get("/")
    except PoolInAnotherLoop as error:
        _say(error)


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")


if __name__ == "__main__":
    main()
