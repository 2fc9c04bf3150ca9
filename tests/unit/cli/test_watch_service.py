"""Following a service over a real connection that does what connections do."""

import json
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path

import pytest
from tests.servers.certificates import make_certificates
from tests.unit.cli.live_service import LiveService, database, document, serving

from penstock.watch import Address, Feed, Lost, Service, WatchError
from penstock.watch.document import Part

TIMEOUT = 0.5
PAUSES = (0.05, 0.1, 0.2)


def event(name: str) -> bytes:
    return f"data: {json.dumps(document(database(name, seconds=1)))}\n\n".encode()


def client_of(url: str, database: str | None = None) -> Service:
    return Service(Address.parse(url), {}, TIMEOUT, database)


def names(document: Part | Lost | None) -> list[str]:
    assert isinstance(document, Part), document
    return [each.text("name") for each in document.parts("databases")]


def lost(feed: Feed) -> Lost:
    news = feed.next(5)
    assert isinstance(news, Lost)
    return news


@contextmanager
def feed_of(service: LiveService) -> Iterator[Feed]:
    with serving(service), Feed(client_of(service.url), PAUSES) as feed:
        yield feed


def test_the_whole_document_comes_first_and_then_the_events() -> None:
    service = LiveService(streams=((event("one"), event("two"), None),))
    with feed_of(service) as feed:
        assert names(feed.first()) == ["default"]
        assert [names(feed.next(5)), names(feed.next(5))] == [["one"], ["two"]]
        assert service.paths() == ["/pool/state", "/pool/events"]


def test_the_prefix_and_the_headers_are_sent() -> None:
    with serving() as service:
        address = Address.parse(f"{service.url}/api/")
        Service(address, {"Authorization": "Bearer x"}, TIMEOUT).state()

    ((path, headers),) = service.asked
    assert path == "/api/pool/state"
    assert headers["Authorization"] == "Bearer x"


def test_one_database_can_be_followed() -> None:
    state = json.dumps(document(database("one"), database("two")))
    with serving(LiveService(state=state)) as service:
        assert names(client_of(service.url, database="two").state()) == ["two"]
        with pytest.raises(WatchError, match="those that it shows are: one, two"):
            client_of(service.url, database="three").state()


def test_a_stream_that_ends_is_asked_for_again() -> None:
    service = LiveService(streams=((event("one"),), (event("two"), None)))
    with feed_of(service) as feed:
        assert [names(feed.first()), names(feed.next(5))] == [["default"], ["one"]]
        told = lost(feed)
        assert "has ended the stream" in str(told.error)
        assert told.pause == PAUSES[0]
        assert [names(feed.next(5)), names(feed.next(5))] == [["default"], ["two"]]


def test_the_pauses_grow_until_a_stream_goes_on() -> None:
    service = LiveService(streams=((), (), (), (), (event("one"),), ()))
    with feed_of(service) as feed:
        news = [feed.next(5) for _ in range(13)]

    pauses = [each.pause for each in news if isinstance(each, Lost)]
    assert pauses == [0.05, 0.1, 0.2, 0.2, 0.05, 0.1]


def test_a_stream_of_minutes_is_renewed_without_a_word() -> None:
    service = LiveService(streams=((event("one"),), (event("two"), None)))
    ticks = iter(range(0, 1_000_000, 61))
    with serving(service):
        address = Address.parse(service.url)
        patient = Service(address, {}, 1_000_000, clock=lambda: float(next(ticks)))
        with Feed(patient, PAUSES) as feed:
            told = [names(feed.next(5)) for _ in range(4)]

    assert told == [["default"], ["one"], ["default"], ["two"]]


@pytest.mark.parametrize("rest", [(None,), repeat(b": still here\n\n")])
def test_silence_ends_in_another_attempt(rest: Iterable[bytes | None]) -> None:
    with feed_of(LiveService(streams=(chain((event("one"),), rest),))) as feed:
        assert [names(feed.first()), names(feed.next(5))] == [["default"], ["one"]]
        assert "has said nothing for 0.5 s" in str(lost(feed).error)
        assert names(feed.next(5)) == ["default"]


@pytest.mark.parametrize("garbage", [b"data: <html>\n\n", b"data: {}\n\n", b"data: \xff\n\n"])
def test_garbage_in_the_stream_ends_in_another_attempt(garbage: bytes) -> None:
    with feed_of(LiveService(streams=((garbage, None),))) as feed:
        feed.first()
        assert "/pool/events" in str(lost(feed).error)


def test_a_service_that_ends_and_comes_back_is_found_again() -> None:
    service = LiveService(streams=((event("one"), None),))
    with feed_of(service) as feed:
        assert [names(feed.first()), names(feed.next(5))] == [["default"], ["one"]]
        service.status = 503
        service.ended.set()
        assert "ended the stream" in str(lost(feed).error)
        assert "503 Service Unavailable" in str(lost(feed).error)
        service.status = 200
        while isinstance(news := feed.next(5), Lost):
            """It has tried before."""
        assert names(news) == ["default"]


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
        (LiveService(state="<html>", kind="text/html"), "does not answer with JSON"),
        (LiveService(state='{"status": "ok"}'), "not Penstock's live document"),
        (LiveService(headers={"Content-Length": "999999"}), "broken off its answer"),
    ],
    ids=lambda value: None if isinstance(value, LiveService) else value,
)
def test_an_answer_that_is_none_says_what_to_do(service: LiveService, said: str) -> None:
    with serving(service), pytest.raises(WatchError) as refused:
        client_of(service.url).state()

    assert said in str(refused.value)
    assert service.url in str(refused.value)


def test_a_header_that_is_not_accepted_is_not_shown() -> None:
    with serving(LiveService(status=401)) as service, pytest.raises(WatchError) as refused:
        Service(Address.parse(service.url), {"Authorization": "Bearer hunter2"}, TIMEOUT).state()

    assert "does not accept the header" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@contextmanager
def saying(*parts: bytes) -> Iterator[str]:
    """Answer each connection with these bytes, whatever it asks, and keep it open."""
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
                for part in parts:
                    connection.sendall(part)
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
        ("http", (), "has said nothing for 0.5 s"),
        ("https", (), "has said nothing for 0.5 s"),
        ("http", (b"SSH-2.0-OpenSSH\r\n",), "does not answer in HTTP"),
        ("https", (b"HTTP/1.1 400 Bad Request\r\n\r\n",), "Is it http:// instead?"),
        ("http", (b"",), "has closed the connection"),
        ("http", (b"HTTP/1.1 200 OK\r\n" * 300,), "does not answer in HTTP"),
    ],
)
def test_what_does_not_speak_http_says_what_it_may_be(
    scheme: str, parts: tuple[bytes, ...], said: str
) -> None:
    with saying(*parts) as place, pytest.raises(WatchError) as refused:
        client_of(f"{scheme}://{place}").state()

    assert said in str(refused.value)


def test_nothing_there_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"

    with pytest.raises(WatchError, match="accepts no connections"):
        client_of(url).state()


def test_a_host_that_nobody_knows_says_so() -> None:
    with pytest.raises(WatchError, match=r"host no-such-host\.invalid is not known"):
        client_of("http://no-such-host.invalid").state()


def test_tls_is_followed_and_left_at_once_if_its_authority_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = make_certificates(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    with serving(LiveService(streams=((event("one"), None),)), tls) as service:
        with pytest.raises(WatchError, match=r"not trusted: .*SSL_CERT_FILE"):
            client_of(service.url).state()

        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
        with Feed(Service(Address.parse(service.url), {}, 60)) as feed:
            assert [names(feed.first()), names(feed.next(5))] == [["default"], ["one"]]

        assert "penstock-watch" not in {thread.name for thread in threading.enumerate()}


def test_leaving_does_not_wait_for_the_service() -> None:
    with serving() as service:
        feed = Feed(Service(Address.parse(service.url), {}, 60))
        with feed:
            feed.first()
            while "/pool/events" not in service.paths():
                feed.next(0.01)

        assert "penstock-watch" not in {thread.name for thread in threading.enumerate()}
