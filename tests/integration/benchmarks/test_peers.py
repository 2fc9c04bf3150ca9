"""Every peer is the same service, so that a comparison compares nothing else."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import httpx
import psycopg
import pytest
from benchmarks import http_read, roundtrips
from benchmarks.dataset import items_database, users_database
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
ITEM = {
    "id": int,
    "name": str,
    "category": str,
    "price": int,
    "quantity": int,
    "active": bool,
    "tags": list,
    "rating": dict,
}
HTTPARENA = ("asyncpg_pool", "express")
RESETS = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE %s"
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
    peers = {name: Peer(name) for name in http_read.ROUTES}
    with (
        users_database(postgres) as url,
        serving(peers, url) as services,
        clients_of(services) as clients,
    ):
        yield clients


@pytest.fixture(scope="module")
def items_url(postgres: PostgresServer) -> Iterator[str]:
    with items_database(postgres) as url:
        yield url


@pytest.fixture(scope="module")
def items(items_url: str) -> Iterator[Clients]:
    peers = {name: Peer(f"httparena.{name}") for name in HTTPARENA}
    with serving(peers, items_url) as services, clients_of(services) as clients:
        yield clients


@pytest.mark.parametrize("peer", http_read.ROUTES)
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


@pytest.mark.parametrize("path", ["/crud/items/7", "/crud/items?category=office&page=3&limit=9"])
def test_both_peers_of_httparena_answer_the_same(items: Clients, path: str) -> None:
    one, other = (client.get(path) for client in items.values())

    assert one.headers["content-type"] == "application/json"
    assert one.json() == other.json()


@pytest.mark.parametrize("peer", HTTPARENA)
@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("?min=5&max=80&limit=7", 7),
        ("?min=100&max=400&limit=33", 33),
        ("?min=9999&max=9999&limit=50", 0),
        ("?limit=1000", 50),
        ("?limit=0", 1),
        ("", 50),
    ],
)
def test_items_are_found_by_their_price(items: Clients, peer: str, asked: str, found: int) -> None:
    answer = items[peer].get(f"/async-db{asked}").json()

    assert answer["count"] == len(answer["items"]) == found
    for item in answer["items"]:
        assert {name: type(value) for name, value in item.items()} == ITEM
        assert item["rating"].keys() == {"score", "count"}


@pytest.mark.parametrize("peer", HTTPARENA)
def test_a_page_of_items_is_counted(items: Clients, peer: str) -> None:
    page = items[peer].get("/crud/items?category=electronics&page=2&limit=5").json()

    assert (page["total"], page["page"], page["limit"]) == (5, 2, 5)
    assert {item["category"] for item in page["items"]} == {"electronics"}
    ids = [item["id"] for item in page["items"]]
    assert ids == sorted(ids)


@pytest.mark.parametrize(("peer", "number"), [("asyncpg_pool", 200_001), ("express", 200_002)])
async def test_items_are_created_changed_and_cached(items: Clients, peer: str, number: int) -> None:
    client, path = items[peer], f"/crud/items/{number}"
    new = {"id": number, "name": "New", "category": "test", "price": 25, "quantity": 10}
    changed = {"name": "Changed", "price": 30, "quantity": 5}

    assert client.get(path).status_code == client.put(path, json=changed).status_code == 404
    created = [client.post("/crud/items", json=new) for _ in range(2)]
    assert [answer.status_code for answer in created] == [201, 201]
    assert created[1].json() == {**created[1].json(), **new}
    await eventually(lambda: client.get(path).headers["x-cache"] == "HIT")
    assert client.put(path, json=changed).json() == {**created[1].json(), **changed}
    read = client.get(path)
    assert read.headers["x-cache"] == "MISS"
    assert read.json() == {**created[1].json(), **changed}


def test_the_pool_of_httparena_resets_nothing(items_url: str, items: Clients) -> None:
    items["asyncpg_pool"].get("/async-db")

    with psycopg.connect(items_url.replace("+asyncpg", ""), autocommit=True) as connection:
        resets = connection.execute(RESETS, ["SELECT pg_advisory_unlock_all%"])
        assert resets.fetchall() == []


def test_a_peer_that_does_not_start_is_an_error() -> None:
    nowhere = "postgresql+asyncpg://nobody:secret@127.0.0.1:1/nothing"

    with (
        pytest.raises(RuntimeError, match="express did not start"),
        serving({"express": Peer("express")}, nowhere),
    ):
        pass
