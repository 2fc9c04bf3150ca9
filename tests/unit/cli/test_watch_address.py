"""What is typed on the command line: the service's URL, and headers."""

import pytest

from penstock.watch import Client, WatchError, headers_from, service_url


@pytest.mark.parametrize(
    ("typed", "understood", "asked"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000", "/pool/state"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000", "/pool/state"),
        ("localhost:8000", "http://localhost:8000", "/pool/state"),
        ("service", "http://service", "/pool/state"),
        ("HTTPS://Service.example", "https://service.example", "/pool/state"),
        ("https://service:443/api/v1/", "https://service/api/v1", "/api/v1/pool/state"),
        ("service:8000/api", "http://service:8000/api", "/api/pool/state"),
        ("http://service:8000/pool", "http://service:8000", "/pool/state"),
        ("http://service/api/pool/", "http://service/api", "/api/pool/state"),
        ("http://[::1]:8000", "http://[::1]:8000", "/pool/state"),
        ("http://service/ä b%20c", "http://service/%C3%A4%20b%20c", "/%C3%A4%20b%20c/pool/state"),
    ],
)
def test_an_address_is_understood(typed: str, understood: str, asked: str) -> None:
    with Client(service_url(typed), {}, 1.0) as client:
        assert client.url == understood
        assert client.request().url.raw_path.decode() == asked


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "http://",
        "ftp://service",
        "http://service:0",
        "http://service:70000",
        "http://service:port",
        "http://[::1",
        "http://a b",
        "http://..",
        "http://service?token=x",
        "http://service#pool",
    ],
)
def test_what_is_no_address_is_refused_with_an_example(typed: str) -> None:
    with pytest.raises(WatchError, match=r"http://127\.0\.0\.1:8000"):
        service_url(typed)


def test_a_refused_address_does_not_reach_the_terminal_as_it_is() -> None:
    with pytest.raises(WatchError) as refused:
        service_url("ftp://\x1b[31mservice")

    assert "\x1b" not in str(refused.value)


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(WatchError, match="PENSTOCK_WATCH_HEADER") as refused:
        service_url("http://user:hunter2@service")

    assert "hunter2" not in str(refused.value)


def test_headers_are_read_a_line_each() -> None:
    lines = ["Authorization: Bearer a:b", "", "X-Team:  one two  "]

    assert headers_from(lines) == {"Authorization": "Bearer a:b", "X-Team": "one two"}


@pytest.mark.parametrize(
    "line",
    [
        "hunter2",
        "Bearer hunter2",
        ": hunter2",
        "Two Words: hunter2",
        "X: hunter2\r\nY: z",
        "X: hunter2\x00",
        "X: hunter2 €",
        "Host: hunter2",
    ],
)
def test_what_is_no_header_is_refused_and_not_repeated(line: str) -> None:
    with pytest.raises(WatchError) as refused:
        headers_from([line])

    assert "hunter2" not in str(refused.value)
