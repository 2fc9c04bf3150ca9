"""Where the replicas are: those that are named, a name's addresses, or what Patroni says."""

import asyncio
import json
import socket
from collections.abc import Sequence
from dataclasses import replace
from http.client import HTTPException
from typing import Any
from urllib.request import urlopen

from pydantic import SecretStr
from sqlalchemy import make_url

from penstock.cluster.member import Endpoint
from penstock.engine.address import hosts_of
from penstock.settings import DatabaseSettings
from penstock.settings.replicas import ReplicaSource, at_host, sources
from penstock.settings.url import DatabaseUrl

_ANSWER_WITHIN = 2.0
"""Seconds for Patroni's REST API, which answers from memory."""
_LARGEST_ANSWER = 1_000_000
_RUNNING = frozenset({"running", "streaming"})
_REPLICAS = frozenset({"replica", "sync_standby", "quorum_standby"})


class Discovery:
    """Finds the replicas of one database.

    Args:
        settings: Of the database.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        self._sources = sources(settings.replicas, settings.url.get_secret_value())

    async def __call__(self) -> list[Endpoint]:
        """Return the replicas that there are now, each once.

        Raises:
            OSError: A name has no address, or no API of Patroni's answers.
        """
        found = await asyncio.gather(*map(_endpoints, self._sources))
        return list({each.name: each for of_source in found for each in of_source}.values())


async def _endpoints(source: ReplicaSource) -> list[Endpoint]:
    match source.kind:
        case "dns":
            return [_endpoint(source, url) for url in await _addresses(source.url)]
        case "patroni":
            hosts = await asyncio.to_thread(_patroni_replicas, source.api)
            return [_endpoint(source, at_host(source.url, host)) for host in hosts]
        case _:
            return [_endpoint(source, source.url)]


def _endpoint(source: ReplicaSource, url: DatabaseUrl) -> Endpoint:
    text = url.text()
    hosts = map(address, hosts_of(make_url(text)))
    return Endpoint(",".join(hosts), SecretStr(text), source.weight, source.reports_position)


async def _addresses(url: DatabaseUrl) -> list[DatabaseUrl]:
    parsed = make_url(url.text())
    found = await asyncio.get_running_loop().getaddrinfo(
        parsed.host or "", parsed.port, type=socket.SOCK_STREAM
    )
    addresses = dict.fromkeys(str(address[0]) for *_, address in found)
    return [replace(url, host=_with_port(address, parsed.port)) for address in addresses]


def address(host: tuple[str, int | None]) -> str:
    """Return a host and its port as one text."""
    return _with_port(*host)


def _with_port(host: str, port: int | None) -> str:
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _patroni_replicas(api: Sequence[str]) -> list[str]:
    failure: OSError = OSError("Patroni has no REST API")
    for address in api:
        try:
            return _running_replicas(_cluster(address))
        except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
            failure = OSError(f"Patroni's REST API at {address} does not answer: {error}")
    raise failure


def _cluster(address: str) -> Any:
    with urlopen(f"{address}/cluster", timeout=_ANSWER_WITHIN) as answer:  # noqa: S310 - http, as was checked
        return json.loads(answer.read(_LARGEST_ANSWER))


def _running_replicas(cluster: Any) -> list[str]:
    return [
        _with_port(member["host"], int(member["port"]))
        for member in cluster["members"]
        if member["role"] in _REPLICAS
        and member["state"] in _RUNNING
        and not (member.get("tags") or {}).get("noloadbalance")
        and int(member["port"])
    ]
