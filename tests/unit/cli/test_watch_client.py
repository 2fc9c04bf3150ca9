"""Executor a service over a real connection that does what connections do."""

import itertools
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.servers.certificates import make_certificates
from tests.unit.cli.live_service import AT, LiveService, database, document, serving

from penstock.watch import Client, Document, Lost, WatchError, headers_from, service_url

TIMEOUT = 0.5


def state(name: str, seconds: int = 1) -> str:
    return json.dumps(document(database(name, seconds=seconds)))


def client_of(
    url: str, database: str | None = None, sleep: Callable[[float], None] = lambda _: None
) -> Client:
    return Client(service_url(url), {}, TIMEOUT, database, sleep)


def names(document: Document | Lost) -> list[str]:
    assert isinstance(document, Document), document
    return [each.text("name") for each in document.databases]


def test_after_the_first_document_only_new_seconds_are_asked_for() -> None:
    service = LiveService([state("one", 60), state("two")])
    with serving(service), client_of(service.url) as client:
        told = [client.document(), *itertools.islice(client.news(), 2)]

    assert [names(each) for each in told] == [["one"], ["two"], ["two"]]
    newest = f"/pool/state?since={AT:.0f}"
    assert service.paths() == ["/pool/state", newest, newest]


def test_a_database_that_is_behind_decides_what_is_asked_for() -> None:
    behind = database("behind")
    behind["history"]["at"] = [at - 5 for at in behind["history"]["at"]]
    silent = database("silent", seconds=0)
    service = LiveService([json.dumps(document(database(), behind, silent))])
    with serving(service), client_of(service.url) as client:
        client.document()
        client.document()

    assert service.paths()[1] == f"/pool/state?since={AT - 5:.0f}"


def test_seconds_that_a_database_has_not_told_of_are_asked_for_again() -> None:
    first = [database("one", 60), database("two", 60)]
    later = [database("one", 1), database("two", 0)]
    later[0]["history"]["at"] = [AT + 1]
    states = [json.dumps(document(*each)) for each in (first, later)]
    service = LiveService(states)
    with serving(service), client_of(service.url) as client:
        for _ in range(3):
            client.document()

    assert service.paths()[2] == f"/pool/state?since={AT:.0f}"


def test_the_prefix_and_the_headers_are_sent() -> None:
    with serving() as service:
        url = service_url(f"{service.url}/api/")
        with Client(url, {"Authorization": "Bearer \xe9"}, TIMEOUT) as client:
            client.document()

    ((path, headers),) = service.asked
    assert path == "/api/pool/state"
    assert headers["Authorization"] == "Bearer \xe9"


def test_one_database_can_be_followed() -> None:
    service = LiveService([json.dumps(document(database("one"), database("two")))])
    with serving(service):
        with client_of(service.url, "two") as client:
            assert names(client.document()) == ["two"]
        with (
            client_of(service.url, "three") as client,
            pytest.raises(WatchError, match="those that it shows are: one, two"),
        ):
            client.document()


def test_the_pauses_grow_until_there_is_an_answer() -> None:
    pauses: list[float] = []
    service = LiveService([state("a"), *[503] * 6, state("b"), None, "<html>", state("c")])
    with serving(service), client_of(service.url, sleep=pauses.append) as client:
        client.document()
        news = list(itertools.islice(client.news(), 10))

    assert [each.pause for each in news if isinstance(each, Lost)] == [1, 2, 4, 8, 15, 15, 1, 2]
    assert [names(each) for each in news if isinstance(each, Document)] == [["b"], ["c"]]
    assert pauses[1:7] == [1, 2, 4, 8, 15, 15]
    assert pauses[8:] == [1, 2]
    # What is known after a failure is not asked for again.
    assert len(set(service.paths()[1:])) == 1


def test_it_asks_once_a_second() -> None:
    pauses: list[float] = []
    with serving() as service, client_of(service.url, sleep=pauses.append) as client:
        list(itertools.islice(client.news(), 5))

    assert pauses[0] == 1
    assert all(0.1 <= pause <= 1 for pause in pauses)


@pytest.mark.parametrize(
    ("service", "said"),
    [
        (LiveService(status=401), "--header"),
        (LiveService(status=403), "PENSTOCK_WATCH_HEADER"),
        (LiveService(status=404), "install(app, database, access=...)"),
        (LiveService(status=500), "its log says why"),
        (LiveService(status=299), "299. Only 200"),
        (
            LiveService(status=307, headers={"Location": "https://x/y?token=z"}),
            "to https://x/y are",
        ),
        (LiveService(["<html>"], kind="text/html"), "does not answer with JSON"),
        (LiveService(['{"status": "ok"}']), "not Penstock's live document"),
        (LiveService(headers={"Content-Length": "999999"}), "broken off its answer"),
    ],
    ids=lambda value: None if isinstance(value, LiveService) else value,
)
def test_an_answer_that_is_none_says_what_to_do(service: LiveService, said: str) -> None:
    with (
        serving(service),
        client_of(service.url) as client,
        pytest.raises(WatchError) as refused,
    ):
        client.document()

    assert said in str(refused.value)
    assert service.url in str(refused.value)


def test_a_header_that_is_not_accepted_is_not_shown() -> None:
    secret = headers_from(["Authorization: Bearer hunter2"])
    with (
        serving(LiveService(status=401)) as service,
        Client(service_url(service.url), secret, TIMEOUT) as client,
        pytest.raises(WatchError) as refused,
    ):
        client.document()

    assert "does not accept the header" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@contextmanager
def saying(*parts: bytes | None) -> Iterator[str]:
    """Answer each connection with these bytes; None says the last of them again and again."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def answer() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(10_000)
                for part in filter(None, parts):
                    connection.sendall(part)
                while parts[-1:] == (None,) and not over.wait(0.05):
                    with suppress(OSError):
                        connection.sendall(b"x")
                if not parts:
                    over.wait(10)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize(
    ("scheme", "parts", "said"),
    [
        ("http", (), "has not answered within 0.5 s"),
        ("https", (), "has not answered within 0.5 s"),
        ("http", (b"SSH-2.0-OpenSSH\r\n",), "does not answer in HTTP"),
        ("https", (b"HTTP/1.1 400 Bad Request\r\n\r\n",), "Is it http:// instead?"),
        ("http", (b"",), "Server disconnected without sending a response"),
        ("http", (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 4096, None), "has not answered within 0.5 s"),
        ("http", (b"HTTP/1.1 200 OK\r\n" * 300,), "does not answer in HTTP"),
    ],
)
def test_what_does_not_speak_http_says_what_it_may_be(
    scheme: str, parts: tuple[bytes | None, ...], said: str
) -> None:
    with (
        saying(*parts) as place,
        client_of(f"{scheme}://{place}") as client,
        pytest.raises(WatchError) as refused,
    ):
        client.document()

    assert said in str(refused.value)


def test_nothing_there_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"

    with client_of(url) as client, pytest.raises(WatchError, match="accepts no connections"):
        client.document()


def test_an_unknown_host_says_so() -> None:
    with (
        client_of("http://no-such-host.invalid") as client,
        pytest.raises(WatchError, match=r"host of http://no-such-host\.invalid is not known"),
    ):
        client.document()


def test_tls_is_followed_if_its_authority_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = make_certificates(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    with serving(LiveService([state("one")]), tls) as service:
        with (
            client_of(service.url) as client,
            pytest.raises(WatchError, match=r"not trusted: .*SSL_CERT_FILE"),
        ):
            client.document()

        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
        with client_of(service.url) as client:
            assert names(client.document()) == ["one"]


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with serving() as service, client_of(service.url) as client:
        assert names(client.document()) == ["default"]
