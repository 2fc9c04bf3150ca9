"""Read-your-writes over HTTP: what a client brings along, and what it is given."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import Column, Integer, MetaData, Table, bindparam, insert, select, text, update
from tests.clusters.streaming import StreamingCluster

from penstock import Database, query
from penstock.cluster import Position, PositionTokens
from penstock.errors import PenstockError
from penstock.fastapi import Reader, ReadSession, Writer, WriteSession, install, read_policy

pytestmark = [pytest.mark.server, pytest.mark.slow]

METADATA = MetaData()
NUMBERS = Table("numbers", METADATA, Column("id", Integer, primary_key=True), Column("n", Integer))
KEY = "a key of the tests alone"
number_of = query(select(NUMBERS.c.n).where(NUMBERS.c.id == bindparam("number_id")))


def service(database: Database) -> FastAPI:
    app = FastAPI()
    install(app, database, shows_server=True)

    @app.post("/session/{n}")
    async def by_session(n: int, session: WriteSession) -> None:
        await session.execute(update(NUMBERS).values(n=n))

    @app.post("/lane/{n}")
    async def by_lane(n: int, writer: Writer) -> None:
        await writer.execute(update(NUMBERS).values(n=n))

    @app.post("/committed/{n}")
    async def committed(n: int, session: WriteSession, reader: Reader) -> int:
        await session.execute(update(NUMBERS).values(n=n))
        await session.commit()
        found: int = await reader.scalar(number_of, number_id=1)
        return found

    @app.post("/refused/{n}")
    async def refused(n: int, session: WriteSession) -> None:
        await session.execute(update(NUMBERS).values(n=n))
        raise PenstockError("nothing of this is saved")

    @app.get("/session")
    async def read_by_session(session: ReadSession) -> Any:
        return await session.scalar(select(NUMBERS.c.n))

    @app.get("/lane")
    async def read_by_lane(reader: Reader) -> Any:
        return await reader.scalar(number_of, number_id=1)

    @app.get("/primary", dependencies=[Depends(read_policy(primary=True))])
    async def read_primary(reader: Reader) -> Any:
        return await reader.scalar(number_of, number_id=1)

    @app.get("/old", dependencies=[Depends(read_policy(prefer="replica"))])
    async def read_old(reader: Reader) -> Any:
        return await reader.scalar(number_of, number_id=1)

    return app


@pytest.fixture
async def database(cluster: StreamingCluster) -> AsyncIterator[Database]:
    made = Database.from_url(
        cluster.primary.url,
        environment="testing",
        replicas=[node.url for node in cluster.replicas],
        replica_check_interval=0.2,
        position_key=KEY,
    )
    async with made:
        async with made.engine.begin() as connection:
            await connection.run_sync(METADATA.create_all)
            await connection.execute(insert(NUMBERS).values(id=1, n=0))
        cluster.wait_for_replay()
        await asyncio.sleep(0.3)
        yield made


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(service(database), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as made:
        yield made


def server(response: httpx.Response) -> str:
    return response.headers["penstock-served-by"].partition(";")[0]


@pytest.mark.parametrize("write", ["session", "lane"])
@pytest.mark.parametrize("read", ["session", "lane"])
async def test_a_client_sees_its_write_and_others_read_replicas(
    client: httpx.AsyncClient, cluster: StreamingCluster, write: str, read: str
) -> None:
    for node in cluster.replicas:
        node.pause_replay()
    assert (await client.post(f"/{write}/7")).status_code == 200

    own = await client.get(f"/{read}")
    client.cookies.clear()
    another = await client.get(f"/{read}")

    assert (own.json(), server(own)) == (7, "primary")
    assert (another.json(), server(another)) == (0, "replica")


async def test_a_token_is_handed_on_as_a_header(
    client: httpx.AsyncClient, cluster: StreamingCluster
) -> None:
    for node in cluster.replicas:
        node.pause_replay()
    token = (await client.post("/lane/8")).headers["penstock-position"]
    client.cookies.clear()

    seen = await client.get("/lane", headers={"Penstock-Position": token})

    assert seen.json() == 8
    assert "penstock-position" not in seen.headers  # it has written nothing


async def test_once_a_replica_is_there_it_reads(
    client: httpx.AsyncClient, cluster: StreamingCluster
) -> None:
    await client.post("/session/9")
    await asyncio.to_thread(cluster.wait_for_replay)

    seen = await client.get("/session")

    assert (seen.json(), server(seen)) == (9, "replica")


async def test_a_request_sees_its_own_commit(
    client: httpx.AsyncClient, cluster: StreamingCluster
) -> None:
    for node in cluster.replicas:
        node.pause_replay()

    assert (await client.post("/committed/10")).json() == 10


async def test_a_client_sees_a_write_that_its_request_has_read_itself(
    client: httpx.AsyncClient, cluster: StreamingCluster
) -> None:
    for node in cluster.replicas:
        node.pause_replay()
    written = await client.post("/committed/13")

    seen = await client.get("/lane")

    assert "penstock-position" in written.headers
    assert (seen.json(), server(seen)) == (13, "primary")


async def test_what_saves_nothing_gives_no_token(client: httpx.AsyncClient) -> None:
    failed = await client.post("/refused/11")
    read = await client.get("/lane")

    assert failed.status_code == 500
    assert "penstock-position" not in {*failed.headers, *read.headers}
    assert not client.cookies


async def test_routes_say_where_they_read(
    client: httpx.AsyncClient, cluster: StreamingCluster
) -> None:
    for node in cluster.replicas:
        node.pause_replay()
    await client.post("/lane/12")

    primary, old = await client.get("/primary"), await client.get("/old")

    assert (primary.json(), server(primary)) == (12, "primary")
    assert (old.json(), server(old)) == (0, "replica")


FAR = Position(1, 2**63)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x" * 5000,
        "1.1.9223372036854775808.1.x",
        PositionTokens(b"another key than theirs", "app", 60).write(FAR),
        PositionTokens(KEY.encode(), "another", 60).write(FAR),
        PositionTokens(KEY.encode(), "app", 60).write(FAR, now=1.0),
        PositionTokens(KEY.encode(), "app", 1e6).write(FAR),
    ],
    ids=["empty", "long", "forged", "foreign", "of another database", "expired", "for too long"],
)
@pytest.mark.parametrize("way", ["header", "cookie"])
async def test_a_token_that_is_none_of_ours_sends_no_read_to_the_primary(
    client: httpx.AsyncClient, token: str, way: str
) -> None:
    name = "Penstock-Position" if way == "header" else "Cookie"
    value = token if way == "header" else f"penstock-position={token}"

    seen = await client.get("/lane", headers={name: value})

    assert (seen.status_code, server(seen)) == (200, "replica")


async def test_a_token_of_ours_from_a_later_timeline_reads_the_primary(
    client: httpx.AsyncClient,
) -> None:
    token = PositionTokens(KEY.encode(), "app", 60).write(Position(2, 1))

    seen = await client.get("/lane", headers={"Penstock-Position": token})

    assert server(seen) == "primary"


async def test_a_cookie_is_closed_to_scripts_and_ends_with_its_token(
    client: httpx.AsyncClient,
) -> None:
    plain = (await client.post("/lane/13")).headers["set-cookie"]
    secure = (await client.post("https://service/lane/13")).headers["set-cookie"]

    for wanted in ("Max-Age=60", "Path=/", "HttpOnly", "SameSite=Lax"):
        assert wanted in plain
    assert "Secure" not in plain
    assert "Secure" in secure


def test_production_asks_for_a_key() -> None:
    database = Database.from_url(
        "postgresql://app@db-1/app", environment="production", replicas="db-2"
    )

    with pytest.raises(PenstockError, match=r"position_key is not set.*DATABASE_POSITION_KEY"):
        install(FastAPI(), database)


async def test_a_write_whose_position_nobody_tells_is_read_from_the_primary(
    client: httpx.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert database.cluster

    async def unanswered() -> Position:
        raise OSError("the primary has just gone")

    monkeypatch.setattr(database.cluster, "position", unanswered)
    assert (await client.post("/lane/14")).status_code == 200

    seen = await client.get("/lane")

    assert (seen.json(), server(seen)) == (14, "primary")


async def test_without_replicas_responses_say_nothing(cluster: StreamingCluster) -> None:
    async with Database.from_url(cluster.primary.url, environment="testing") as database:
        app = FastAPI()
        install(app, database, shows_server=True)

        @app.post("/")
        async def write(writer: Writer) -> None:
            await writer.execute(text("CREATE TEMPORARY TABLE nothing ()"))

        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            answer = await client.post("/")

    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("penstock")]
