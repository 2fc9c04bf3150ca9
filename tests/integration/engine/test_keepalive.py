"""TCP keepalive, read back from each driver's real socket."""

import asyncio
import os
import socket
import sys

import pytest
import uvloop
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.integration.engine.engines import driver_connection, engine_on, transport_of

from penstock.engine.connector import INTERVAL, PROBES, USER_TIMEOUT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the options are Linux's")


async def file_descriptor(connection: AsyncConnection) -> int:
    number: int
    if connection.dialect.driver == "psycopg":
        number = (await driver_connection(connection)).pgconn.socket
    else:
        number = (await transport_of(connection)).get_extra_info("socket").fileno()
    return number


async def options(connection: AsyncConnection) -> dict[str, int]:
    with socket.socket(fileno=os.dup(await file_descriptor(connection))) as same:
        return {
            "alive": same.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            **{
                name: same.getsockopt(socket.IPPROTO_TCP, option)
                for name, option in (
                    ("idle", socket.TCP_KEEPIDLE),
                    ("interval", socket.TCP_KEEPINTVL),
                    ("probes", socket.TCP_KEEPCNT),
                    ("user timeout", socket.TCP_USER_TIMEOUT),
                )
            },
        }


def expected(idle: int) -> dict[str, int]:
    return {
        "alive": 1,
        "idle": idle,
        "interval": INTERVAL,
        "probes": PROBES,
        "user timeout": USER_TIMEOUT * 1000,
    }


async def test_the_socket_has_the_settings_idle_time(network_url: str) -> None:
    async with (
        engine_on(network_url, tcp_keepalive=457) as engine,
        engine.connect() as connection,
    ):
        assert await options(connection) == expected(457)


async def test_the_default_is_300_seconds(network_url: str) -> None:
    async with engine_on(network_url) as engine, engine.connect() as connection:
        assert await options(connection) == expected(300)


def test_the_socket_has_the_settings_idle_time_on_uvloop(network_url: str) -> None:
    async def ask() -> dict[str, int]:
        async with (
            engine_on(network_url, tcp_keepalive=457) as engine,
            engine.connect() as connection,
        ):
            return await options(connection)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(ask()) == expected(457)
