"""The proxy of the benchmark of round trips: it delays, and changes nothing."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import Mock, call

import pytest
from benchmarks.delay_proxy import Side, delayed

DELAY = 0.02
PIECE = bytes(range(256)) * 16


@contextmanager
def echo_server() -> Iterator[int]:
    """Send back what each connection says, and close it after its end."""

    def echo(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def distant() -> Iterator[tuple[str, int]]:
    with echo_server() as port, delayed("127.0.0.1", port, DELAY) as distant_port:
        yield "127.0.0.1", distant_port


def received(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length and (part := connection.recv(65536)):
        data += part
    return data


def test_an_answer_takes_both_delays(distant: tuple[str, int]) -> None:
    with socket.create_connection(distant, timeout=30) as connection:
        for _ in range(3):
            begun = time.monotonic()
            connection.sendall(b"ping")
            assert received(connection, 4) == b"ping"
            assert time.monotonic() - begun >= 2 * DELAY


class Clock:
    """Stands for an event loop whose time the test decides."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        self.timers.append((when, callback))

    def advance(self, now: float) -> None:
        self.now = now
        due = [callback for when, callback in self.timers if when <= now]
        self.timers = [timer for timer in self.timers if timer[0] > now]
        for callback in due:
            callback()


def test_pieces_do_not_wait_for_each_other() -> None:
    clock: Any = Clock()
    one, other = Side(2.0, clock), Side(2.0, clock)
    one.other, other.transport = other, Mock(is_closing=lambda: False)
    passed_on = other.transport.write.call_args_list

    for number, at in enumerate((0.0, 0.5, 1.0)):
        clock.advance(at)
        one.data_received(b"%d" % number)
    clock.advance(1.9)
    assert passed_on == []
    clock.advance(2.5)
    assert passed_on == [call(b"0"), call(b"1")]
    clock.advance(3.0)
    assert passed_on == [call(b"0"), call(b"1"), call(b"2")]
    assert clock.timers == []


def test_bytes_arrive_as_they_were_sent_before_and_after_one_side_ends(
    distant: tuple[str, int],
) -> None:
    message = PIECE * 1000

    with socket.create_connection(distant, timeout=30) as connection:
        sending = threading.Thread(target=connection.sendall, args=(message,))
        sending.start()
        first = received(connection, len(message) // 2)
        sending.join()
        connection.shutdown(socket.SHUT_WR)
        rest = received(connection, len(message))

    assert first + rest == message


def test_a_server_that_is_not_there_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with (
        delayed("127.0.0.1", port, DELAY) as distant_port,
        socket.create_connection(("127.0.0.1", distant_port), timeout=30) as connection,
        suppress(ConnectionResetError),
    ):
        assert connection.recv(1) == b""
