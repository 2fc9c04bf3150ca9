"""Every peer is the same service, so that a comparison compares nothing else."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import httpx
import psycopg
import pytest
from benchmarks import http_read, roundtrips, techempower
from benchmarks.dataset import FORTUNES, users_database, worlds_database
from benchmarks.peers.techempower.worlds import ADDED
from benchmarks.service import Peer, Service, serving
from tests.eventually import eventually
from tests.servers.postgres import PostgresServer

FIRST = {
    "id": 1,
    "email": "user1@example.com",
    "username": "user1",
    "is_active": True,
    "created_at": "2025-01-01T00:01:00Z",
}


STORED = "SELECT id, randomnumber FROM world WHERE id = ANY (%s)"
Clients = dict[str, httpx.Client]


@contextmanager
def clients_of(services: Mapping[str, Service]) -> Iterator[Clients]:
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(httpx.Client(base_url=service.url, trust_env=False))
            for name, service in services.items()
        }


@pytest.fixture(scope="module")
def users(postgres: PostgresServer) -> Iterator[Clients]:
    peers = {name: Peer(name) for name in http_read.PEERS}
    with (
        users_database(postgres) as url,
        serving(peers, url) as services,
        clients_of(services) as clients,
    ):
        yield clients


@pytest.fixture(scope="module")
def worlds_url(postgres: PostgresServer) -> Iterator[str]:
    with worlds_database(postgres) as url:
        yield url


@pytest.fixture(scope="module")
def worlds(worlds_url: str) -> Iterator[Clients]:
    with serving(techempower.PEERS, worlds_url) as services, clients_of(services) as clients:
        yield clients


@pytest.mark.parametrize("peer", http_read.PEERS)
def test_a_peer_answers_the_first_user(users: Clients, peer: str) -> None:
    answer = users[peer].get("/users/1")

    assert (answer.status_code, answer.json()) == (200, FIRST)


@pytest.mark.parametrize("peer", roundtrips.PEERS)
def test_a_peer_has_no_user_of_another_id(users: Clients, peer: str) -> None:
    assert users[peer].get("/users/10000").json()["username"] == "user10000"
    assert users[peer].get("/users/1000000").status_code == 404


@pytest.mark.parametrize("peer", roundtrips.PEERS)
async def test_a_peer_saves_a_user_and_answers_it(users: Clients, peer: str) -> None:
    user = {"email": f"{peer}@example.com", "username": peer}

    answer = users[peer].post("/users", json=user)

    assert answer.status_code == 201
    written = answer.json()
    assert written.keys() == FIRST.keys()
    assert {**written, **user, "is_active": True} == written
    read = partial(users["asyncpg_by_hand"].get, f"/users/{written['id']}")
    await eventually(lambda: read().json() == written)  # some commit after their response


@pytest.mark.parametrize("peer", techempower.PEERS)
def test_a_techempower_peer_keeps_the_rules(worlds: Clients, peer: str) -> None:
    client = worlds[peer]

    assert client.get("/json").json() == {"message": "Hello, World!"}
    assert client.get("/plaintext").text == "Hello, World!"
    assert client.get("/db").json().keys() == {"id", "randomNumber"}
    assert len(client.get("/queries?queries=none").json()) == 1
    assert len({world["id"] for world in client.get("/queries?queries=20").json()}) == 20


@pytest.mark.parametrize("peer", techempower.PEERS)
async def test_a_techempower_peer_saves_updates(
    worlds_url: str, worlds: Clients, peer: str
) -> None:
    updated = worlds[peer].get("/updates?queries=20").json()

    numbers = {world["id"]: world["randomNumber"] for world in updated}
    assert len(numbers) == 20
    with psycopg.connect(worlds_url.replace("+asyncpg", ""), autocommit=True) as connection:
        read = partial(connection.execute, STORED, [list(numbers)])
        await eventually(lambda: dict(read().fetchall()) == numbers)  # as above


def test_the_page_of_fortunes_is_the_same_everywhere(worlds: Clients) -> None:
    pages = {client.get("/fortunes").text for client in worlds.values()}

    assert len(pages) == 1
    page = pages.pop()
    assert ADDED in page
    assert "<script>" not in page
    assert page.count("<tr>") == len(FORTUNES) + 2


def test_a_peer_that_does_not_start_is_an_error() -> None:
    nowhere = "postgresql+asyncpg://nobody:secret@127.0.0.1:1/nothing"

    with (
        pytest.raises(RuntimeError, match="express did not start"),
        serving({"express": Peer("express")}, nowhere),
    ):
        pass
