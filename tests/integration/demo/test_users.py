"""The users service by real HTTP on a real PostgreSQL."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from tests.servers.web import client_of

from penstock import Database
from penstock.demo.users import create_app, upgrade

PASSWORD = "correct horse battery staple"
PROBLEM = "application/problem+json"


def user(name: str, **changes: str) -> dict[str, str]:
    return {"email": f"{name}@example.com", "username": name, "password": PASSWORD, **changes}


@pytest.fixture
async def database(database_url: str) -> Database:
    """A migrated database whose pool has a single connection."""
    database = Database.from_url(
        database_url, environment="testing", pool_size=1, max_overflow=0, pool_timeout=20
    )
    await upgrade(database)
    await database.close()
    return database


@pytest.fixture
def app(database: Database) -> FastAPI:
    return create_app(database)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


async def created(client: httpx.AsyncClient, *names: str) -> list[dict[str, Any]]:
    answers = [await client.post("/users/", json=user(name)) for name in names]
    assert [answer.status_code for answer in answers] == [201] * len(names)
    return [answer.json() for answer in answers]


async def usernames(client: httpx.AsyncClient, query: str = "") -> list[str]:
    answer = await client.get(f"/users/{query}")
    assert answer.status_code == 200, answer.text
    return [found["username"] for found in answer.json()]


async def test_a_created_user_can_be_read_at_once(client: httpx.AsyncClient) -> None:
    (ada,) = await created(client, "ada")

    assert ada.keys() == {"id", "email", "username", "is_active", "created_at", "updated_at"}
    assert (ada["email"], ada["username"], ada["is_active"]) == ("ada@example.com", "ada", True)
    assert ada["created_at"] == ada["updated_at"]
    assert ada["created_at"].endswith("Z")
    assert (await client.get(f"/users/{ada['id']}")).json() == ada


@pytest.mark.parametrize("taken", [{"email": "ada@example.com"}, {"username": "ada"}])
async def test_a_taken_email_or_username_is_a_conflict(
    client: httpx.AsyncClient, taken: dict[str, str]
) -> None:
    await created(client, "ada")

    answer = await client.post("/users/", json=user("bob", **taken))

    assert (answer.status_code, answer.headers["content-type"]) == (409, PROBLEM)
    assert await usernames(client) == ["ada"]


async def test_of_twenty_equal_users_at_once_exactly_one_is_created(
    client: httpx.AsyncClient,
) -> None:
    answers = await asyncio.gather(*(client.post("/users/", json=user("ada")) for _ in range(20)))

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
    assert await usernames(client) == ["ada"]


async def test_the_list_is_in_the_order_of_creation_and_skips_and_limits(
    client: httpx.AsyncClient,
) -> None:
    await created(client, "eve", "ada", "dan", "bob")

    assert await usernames(client) == ["eve", "ada", "dan", "bob"]
    assert await usernames(client, "?skip=1&limit=2") == ["ada", "dan"]
    assert await usernames(client, "?skip=9") == []


async def test_a_page_has_at_most_100_users(client: httpx.AsyncClient, database_url: str) -> None:
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    await connection.execute(
        "INSERT INTO users (email, username, hashed_password) "
        "SELECT format('%s@example.com', n), n, '-' FROM generate_series(1, 130) n"
    )
    await connection.close()

    assert len(await usernames(client)) == 100
    assert len(await usernames(client, "?limit=1000")) == 100
    assert len(await usernames(client, f"?limit={10**30}")) == 100
    assert len(await usernames(client, "?skip=100")) == 30


@pytest.mark.parametrize("query", ["skip=-1", "limit=0", "limit=x", f"skip={2**63}"])
async def test_a_page_that_cannot_be_is_refused(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/users/?{query}")

    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM)


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("user_id", "status"), [(1, 404), (2**63 - 1, 404), (2**63, 422), (0, 422)]
)
async def test_an_unknown_id_is_not_found_and_an_impossible_one_refused(
    client: httpx.AsyncClient, method: str, user_id: int, status: int
) -> None:
    body: dict[str, str] | None = {} if method == "PATCH" else None

    answer = await client.request(method, f"/users/{user_id}", json=body)

    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)


async def test_a_change_touches_what_it_names(client: httpx.AsyncClient, database_url: str) -> None:
    (ada,) = await created(client, "ada")
    old_hash = await stored_hash(database_url, ada["id"])

    answer = await client.patch(f"/users/{ada['id']}", json={"username": "countess"})

    changed = answer.json()
    assert answer.status_code == 200
    assert changed["updated_at"] > ada["updated_at"]
    assert changed == {**ada, "username": "countess", "updated_at": changed["updated_at"]}
    assert (await client.get(f"/users/{ada['id']}")).json() == changed
    assert await stored_hash(database_url, ada["id"]) == old_hash


async def test_a_change_of_the_password_changes_the_hash(
    client: httpx.AsyncClient, database_url: str
) -> None:
    (ada,) = await created(client, "ada")
    old_hash = await stored_hash(database_url, ada["id"])

    answer = await client.patch(f"/users/{ada['id']}", json={"password": "another one"})

    assert answer.status_code == 200
    assert await stored_hash(database_url, ada["id"]) != old_hash


async def test_an_empty_change_changes_nothing(client: httpx.AsyncClient) -> None:
    (ada,) = await created(client, "ada")

    answer = await client.patch(f"/users/{ada['id']}", json={"email": None})

    assert (answer.status_code, answer.json()) == (200, ada)


async def test_a_change_to_what_another_user_has_is_a_conflict(client: httpx.AsyncClient) -> None:
    _, bob = await created(client, "ada", "bob")

    answer = await client.patch(f"/users/{bob['id']}", json={"username": "ada"})

    assert answer.status_code == 409
    assert (await client.get(f"/users/{bob['id']}")).json() == bob


async def test_a_deactivated_user_is_no_longer_listed_but_still_there(
    client: httpx.AsyncClient,
) -> None:
    ada, _ = await created(client, "ada", "bob")

    answers = [await client.delete(f"/users/{ada['id']}") for _ in range(2)]

    assert [(answer.status_code, answer.content) for answer in answers] == [(204, b"")] * 2
    assert await usernames(client) == ["bob"]
    assert (await client.get(f"/users/{ada['id']}")).json()["is_active"] is False
    assert (await client.post("/users/", json=user("ada"))).status_code == 409


@pytest.mark.parametrize(
    "text",
    [
        r'{"email": "a\u0000@example.com", "username": "ada", "password": "12345678"}',
        r'{"email": "a@example.com", "username": "a\u0000", "password": "12345678"}',
        r'{"email": "a@example.com", "username": "a", "password": "12345678\u0000"}',
        r'{"email": "\ud800a@example.com", "username": "ada", "password": "12345678"}',
        r'{"email": "a@example.com", "username": "\udfff", "password": "12345678"}',
        r'{"email": "a@example.com", "username": "a", "password": "12345678\ud800"}',
        r'"\ud800"',
        "{",
        "",
    ],
)
async def test_text_that_cannot_be_stored_or_read_is_refused(
    client: httpx.AsyncClient, text: str
) -> None:
    answer = await client.post(
        "/users/", content=text, headers={"Content-Type": "application/json"}
    )

    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM)
    assert await usernames(client) == []


async def test_neither_a_password_nor_its_hash_is_answered_or_logged(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database.from_url(database_url, environment="development", echo=True)
    await upgrade(database)
    caplog.set_level(logging.INFO)
    told = ""

    async with client_of(create_app(database)) as client:
        for method, path, body in (
            ("POST", "/users/", user("ada")),
            ("POST", "/users/", user("ada")),
            ("POST", "/users/", user("bob", email="no address")),
            ("POST", "/users/", {"password": PASSWORD}),
            ("POST", "/users/", user("bob", password=PASSWORD * 5)),
            ("PATCH", "/users/1", {"password": f"{PASSWORD}!"}),
            ("PATCH", "/users/99", {"password": f"{PASSWORD}!"}),
        ):
            told += (await client.request(method, path, json=body)).text
        told += (await client.get("/users/1")).text + (await client.get("/users/")).text
        told += (await client.get("/openapi.json")).text.replace(PASSWORD, "", 2)

    assert "INSERT INTO users" in caplog.text
    assert "UPDATE users" in caplog.text
    for secret in (PASSWORD, "$argon2"):
        assert secret not in told
        assert secret not in caplog.text


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_no_connection_is_held_while_a_password_is_hashed(
    client: httpx.AsyncClient, app: FastAPI, database: Database, method: str
) -> None:
    (ada,) = await created(client, "ada")
    path = "/users/" if method == "POST" else f"/users/{ada['id']}"
    hashing = app.state.passwords.limiter
    held = set()

    asked = asyncio.create_task(client.request(method, path, json=user("bob")))
    while not asked.done():
        await asyncio.sleep(0)
        if hashing.borrowed_tokens:
            held.add(database.pool.snapshot().checked_out)

    assert (await asked).is_success
    assert held == {0}


async def test_it_is_healthy_and_shows_its_pool(client: httpx.AsyncClient) -> None:
    pool = (await client.get("/pool-stats")).json()["default"]

    assert (await client.get("/health/ready")).status_code == 200
    assert (pool["size"], pool["limit"]) == (1, 1)


def test_it_finds_its_database_in_the_environment(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)

    assert isinstance(create_app(), FastAPI)


async def stored_hash(database_url: str, user_id: int) -> str:
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    try:
        found: str = await connection.fetchval(
            "SELECT hashed_password FROM users WHERE id = $1", user_id
        )
    finally:
        await connection.close()
    return found
