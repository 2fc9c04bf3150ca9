import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
from penstock import Database
from sqlalchemy import update

from app.models import User
from app.security import ALGORITHM, hash_password, passwords
from app.settings import settings

USER = {"username": "ada", "password": "correct horse"}


def token(key: str | None = None, algorithm: str = ALGORITHM, **changes: Any) -> str:
    claims = {"sub": "1", "exp": datetime.now(UTC) + timedelta(minutes=1)} | changes
    given = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(
        given, settings.secret_key.get_secret_value() if key is None else key, algorithm
    )


async def status(client: httpx.AsyncClient, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return (await client.get("/users/me", headers=headers)).status_code


@pytest.fixture
async def ada(penstock_client: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client that is not signed in; the user is there."""
    assert (await penstock_client.post("/users", json=USER)).status_code == 201
    return penstock_client


async def test_a_user_signs_in(ada: httpx.AsyncClient) -> None:
    answer = await ada.post("/token", data=USER)

    assert answer.json()["token_type"] == "bearer"
    assert answer.headers["cache-control"] == "no-store"
    ada.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    me = (await ada.get("/users/me")).json()
    assert me == {"id": me["id"], "username": USER["username"]}


async def test_a_hash_is_shown_in_no_log() -> None:
    hashed = await hash_password("x")

    assert hashed.startswith("$argon2")
    assert f"{(hashed,)}" == "('***',)"  # as statements' values are logged


@pytest.mark.parametrize("name", ["ada", "Ada"])
async def test_a_name_is_taken_once(ada: httpx.AsyncClient, name: str) -> None:
    user = USER | {"username": name}

    assert (await ada.post("/users", json=user)).status_code == 409
    assert (await ada.post("/token", data=user)).status_code == 200


async def test_a_name_that_looks_like_another_is_refused(ada: httpx.AsyncClient) -> None:
    cyrillic = USER | {"username": "\u0430da"}

    assert (await ada.post("/users", json=cyrillic)).status_code == 422


@pytest.mark.parametrize("wrong", [{"password": "wrong"}, {"username": "nobody"}])
async def test_wrong_credentials_are_refused_alike(
    ada: httpx.AsyncClient, wrong: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[tuple[str, ...]] = []
    verify = passwords.verify

    def noting_verify(*given: str) -> bool:
        verified.append(given)
        return verify(*given)

    monkeypatch.setattr(passwords, "verify", noting_verify)

    answer = await ada.post("/token", data=USER | wrong)

    assert answer.status_code == 401
    assert answer.json() == {"detail": "Incorrect username or password"}
    assert len(verified) == 1  # also for a name that nobody has, so that it takes as long


async def test_a_token_names_its_user(client: httpx.AsyncClient) -> None:
    user = (await client.get("/users/me")).json()

    assert await status(client, token(sub=str(user["id"]))) == 200


REFUSED: dict[str, Callable[[str], str]] = {
    "expired": lambda user: token(sub=user, exp=datetime.now(UTC) - timedelta(seconds=1)),
    "without an end": lambda user: token(sub=user, exp=None),
    "without a user": lambda _: token(sub=None),
    "of a user that is not there": lambda user: token(sub=str(int(user) + 1)),
    "of no number": lambda _: token(sub="ada"),
    "signed by another key": lambda user: token("x" * 32, sub=user),
    "not signed": lambda user: token("", "none", sub=user),
    "signed by another algorithm": lambda user: token(algorithm="HS384", sub=user),
    "tampered with": lambda user: tampered(token(sub=user)),
    "no token": lambda _: "x",
}


def tampered(good: str) -> str:
    header, _, signature = good.split(".")
    _, claims, _ = token(sub="2").split(".")
    return f"{header}.{claims}.{signature}"


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_token_is_refused(client: httpx.AsyncClient, kind: str) -> None:
    user = (await client.get("/users/me")).json()

    assert await status(client, REFUSED[kind](str(user["id"]))) == 401


async def test_a_user_who_was_deactivated_is_refused(
    ada: httpx.AsyncClient, client: httpx.AsyncClient, penstock_database: Database
) -> None:
    async with penstock_database.write() as session:
        await session.execute(update(User).values(is_active=False))

    assert (await client.get("/users/me")).status_code == 401
    assert (await ada.post("/token", data=USER)).status_code == 401


async def test_no_connection_is_held_while_a_password_is_hashed(
    committing: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.main import database

    assert (await committing.post("/users", json=USER)).status_code == 201
    reached, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def waiting(do: Any) -> Any:
        def wait(*given: Any) -> Any:
            loop.call_soon_threadsafe(reached.set)
            go_on.wait(10)
            return do(*given)

        return wait

    monkeypatch.setattr(passwords, "hash", waiting(passwords.hash))
    monkeypatch.setattr(passwords, "verify", waiting(passwords.verify))
    for request in (
        committing.post("/users", json=USER | {"username": "grace"}),
        committing.post("/token", data=USER),
    ):
        reached.clear()
        go_on.clear()
        answer = asyncio.ensure_future(request)
        await asyncio.wait_for(reached.wait(), 10)

        assert database.pool.snapshot().checked_out == 0
        go_on.set()
        assert (await answer).status_code in (200, 201)
