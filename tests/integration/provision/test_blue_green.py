"""Blue and green as systemd would start them, and nginx in front of both."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest
from tests.integration.provision.test_deployment import deployment, program
from tests.servers.process import free_port

from penstock.provision import write_files

APPLICATION = """
import asyncio, os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return await send({"type": "lifespan.shutdown.complete"})
    if scope["query_string"]:
        open("arrived", "x").close()
        await asyncio.sleep(1)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": os.environ["COLOUR"].encode()})
"""
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts programs that are gone after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def call(*command: str | Path, **variables: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=tmp_path,
                env={**os.environ, **variables},
                stdout=log,
                stderr=log,
            )
        started.append(process)
        return process

    yield call
    for process in started:
        process.terminate()
        process.wait(20)


def get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=20).raise_for_status()


def is_ready(url: str) -> bool:
    try:
        return get(url).is_success
    except httpx.HTTPError:
        return False


def until(condition: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def test_nginx_switches_to_the_other_and_the_units_command_ends_in_time(
    start: Start, tmp_path: Path
) -> None:
    nginx = program("nginx", "nginx-light")
    files = deployment().files(["systemd", "nginx"])
    write_files(files, tmp_path)
    (tmp_path / "app").mkdir()
    (tmp_path / "app/main.py").write_text(APPLICATION)
    unit = (tmp_path / "systemd/shop@.service").read_text()
    found = re.search(r"ExecStart=\S+uvicorn (.*)", unit)
    assert found
    ports = {"blue": free_port(), "green": free_port()}
    services = {
        colour: start(
            *(sys.executable, "-m", "uvicorn"),
            *shlex.split(found[1].replace("%i", str(port))),
            COLOUR=colour,
            WEB_CONCURRENCY="1",
        )
        for colour, port in ports.items()
    }
    front = free_port()
    for colour, port in ports.items():
        (tmp_path / f"{colour}.conf").write_text(f"server 127.0.0.1:{port} max_fails=0;\n")
        until(partial(is_ready, f"http://127.0.0.1:{port}"), tmp_path / "log")
    shutil.copy(tmp_path / "blue.conf", tmp_path / "active.conf")
    main = _nginx_files(tmp_path, front)
    server = start(nginx, "-p", tmp_path, "-e", "stderr", "-c", main, "-g", "daemon off;")
    url = f"http://127.0.0.1:{front}/"
    until(partial(is_ready, url), tmp_path / "log")

    before = get(url).text
    with ThreadPoolExecutor(1) as thread:
        slow = thread.submit(get, f"{url}?slow")
        until((tmp_path / "arrived").exists, tmp_path / "log")
        shutil.copy(tmp_path / "green.conf", tmp_path / "active.conf")
        server.send_signal(signal.SIGHUP)
        answers: list[str] = []
        while not answers or answers[-1] != "green":
            answers.append(get(url).text)
        services["blue"].terminate()
        told = slow.result(20)

    assert before == "blue"
    assert set(answers) <= {"blue", "green"}
    assert told.text == "blue"
    assert services["blue"].wait(20) in {0, -signal.SIGTERM}
    assert get(url).text == "green"


def _nginx_files(directory: Path, port: int) -> Path:
    text = (directory / "nginx/shop.conf").read_text()
    text = text.replace("/etc/nginx/shop", str(directory))
    text = text.replace("listen 80;", f"listen 127.0.0.1:{port};")
    (directory / "shop.conf").write_text(text)
    places = "".join(
        f"{kind}_temp_path {directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = directory / "nginx.conf"
    main.write_text(
        f"pid {directory}/pid; events {{}} "
        f"http {{ access_log off; {places} include {directory}/shop.conf; }}"
    )
    return main
