"""The HTTP client of the benchmarks against servers that do not make it easy."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from benchmarks.http_load import CLIENTS, Driver, Rotation, Traffic

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n12\r\n\r\n345678"
"""Its body has what ends a head."""
FAILURE = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


@contextmanager
def server(handle: Callable[[socket.socket, bytes], None]) -> Iterator[tuple[str, list[bytes]]]:
    requests: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with connection, suppress(ConnectionError):
            while request := connection.recv(65536):
                requests.append(request)
                handle(connection, request)

    def accept() -> None:
        for _ in range(CLIENTS):
            connection, _address = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=CLIENTS) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
        thread.join(10)


def in_pieces(connection: socket.socket, request: bytes) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for place in range(0, len(ANSWER), 7):
        connection.sendall(ANSWER[place : place + 7])


def test_an_answer_may_come_in_pieces() -> None:
    with server(in_pieces) as (url, requests):
        load = Driver().load(url, Traffic("/users/ID"), 0.2, 0.1)

    assert load.sent == len(requests) >= CLIENTS
    assert 0 < load.p50_ms <= load.p99_ms
    assert load.requests_per_second > 0


def test_ids_vary_and_every_row_has_a_name_of_its_own() -> None:
    write = Traffic("/users", "POST", '{"name": "NEW"}')

    driver = Driver()
    with server(in_pieces) as (url, reads):
        driver.load(url, Traffic("/users/ID"), 0.2, 0.0)
    with server(in_pieces) as (url, writes):
        driver.load(url, write, 0.2, 0.0)

    assert all(read.startswith(b"GET /users/") for read in reads)
    assert len(set(reads)) > len(reads) / 2
    assert all(request.startswith(b"POST /users ") for request in writes)
    assert len(set(writes)) == len(writes)


def slowly(connection: socket.socket, request: bytes) -> None:
    time.sleep(0.05)
    connection.sendall(ANSWER)


def test_a_turn_lasts_until_there_are_enough_answers() -> None:
    with server(slowly) as (url, _):
        load = Driver().load(url, Traffic("/"), 0.001, 0.0)

    assert load.sent >= CLIENTS
    assert load.requests_per_second > 0


def test_a_rate_is_not_exceeded_by_a_fast_server() -> None:
    with server(in_pieces) as (url, requests):
        load = Driver().load(url, Traffic("/", rate=200.0), 0.3, 0.0)

    assert CLIENTS <= load.sent == len(requests) <= 1 + 200 * load.elapsed


def test_a_latency_counts_from_when_a_request_was_due() -> None:
    with server(slowly) as (url, _):
        load = Driver().load(url, Traffic("/", rate=10_000.0), 0.2, 0.0)

    # The second request of each client was due at once, and sent after the answer to its first.
    assert load.p99_ms >= 90


def test_kinds_of_request_take_turns() -> None:
    read, write = Traffic("/ID", ids=3), Traffic("/", "PUT", '{"id": NEXT}')

    with server(in_pieces) as (url, requests):
        Driver().load(url, Rotation([read, read, write]), 0.2, 0.0)

    paths = [request.split()[1] for request in requests if request.startswith(b"GET")]
    bodies = [request.rpartition(b"\r\n")[2] for request in requests if request.startswith(b"PUT")]
    numbers = {json.loads(body)["id"] for body in bodies}
    assert set(paths) == {b"/1", b"/2", b"/3"}
    assert numbers == set(range(100_001, 100_001 + len(numbers)))
    assert abs(len(paths) - 2 * len(numbers)) <= 2


def test_each_worker_has_clients_of_its_own() -> None:
    with server(in_pieces) as (url, one), server(in_pieces) as (other, two):
        load = Driver().load(url, Traffic("/"), 0.2, 0.0, others=[other])

    assert load.sent == len(one) + len(two)
    assert min(len(one), len(two)) >= CLIENTS


def test_a_failed_request_is_an_error_that_names_it() -> None:
    with (
        server(lambda connection, _: connection.sendall(FAILURE)) as (url, _),
        pytest.raises(RuntimeError, match="'503'"),
    ):
        Driver().load(url, Traffic("/users/1"), 0.2, 0.0)


def test_a_server_that_hangs_up_is_an_error() -> None:
    with (
        server(lambda connection, _: connection.shutdown(socket.SHUT_RDWR)) as (url, _),
        pytest.raises(RuntimeError, match="connection lost"),
    ):
        Driver().load(url, Traffic("/users/1"), 0.2, 0.0)
