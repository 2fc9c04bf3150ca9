"""Credentials that rotate, on real servers: each driver, and what is said when there are none."""

import asyncio
import secrets
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url
from tests.eventually import eventually
from tests.integration.engine.engines import scalar, with_parts
from tests.servers.postgres import PostgresServer

from penstock import Database
from penstock.credentials import Credentials, file_credentials
from penstock.engine import EngineOptions, build_engine
from penstock.errors import SettingsError
from penstock.pool import ConnectFailed, FailureReason
from penstock.settings import DatabaseSettings


class Vault:
    """Brings what is in it, counts how often, and can be slow or broken."""

    def __init__(self, password: str, user: str | None = None) -> None:
        self.password, self.user = password, user
        self.fetches = 0
        self.options: dict[str, Any] = {}
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None

    async def credentials(self) -> Credentials:
        self.fetches += 1
        brought = self.password
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Credentials(user=self.user, password=brought, **self.options)


def account(url: str) -> tuple[str, str]:
    parsed = make_url(url)
    assert parsed.username
    return parsed.username, str(parsed.password)


def without_password(url: str) -> str:
    return with_parts(url, password="of-no-use")


def database(url: str, vault: Vault, **settings: Any) -> Database:
    given = {"environment": "testing", "telemetry": False, **settings}
    return Database.from_url(url, credentials=vault.credentials, **given)


async def one(database: Database) -> Any:
    return await scalar(database.engine, "SELECT 1")


async def test_user_and_password_are_the_providers_on_each_driver(network_url: str) -> None:
    user, password = account(network_url)
    vault = Vault(password, user)

    url = with_parts(network_url, username="nobody_else", password="of-no-use")
    async with database(url, vault) as db:
        assert await one(db) == 1

    assert vault.fetches == 1


async def test_a_refused_password_is_fetched_anew_on_each_driver(network_url: str) -> None:
    _, password = account(network_url)
    vault = Vault("of-yesterday")
    fetched = vault.credentials

    async def changing() -> Credentials:
        brought = await fetched()
        vault.password = password
        return brought

    vault.credentials = changing  # type: ignore[method-assign]
    async with database(without_password(network_url), vault) as db:
        assert await one(db) == 1

    assert vault.fetches == 2


async def test_many_connects_share_one_fetch(database_url: str) -> None:
    _, password = account(database_url)
    vault = Vault(password)
    vault.gate = asyncio.Event()
    db = database(without_password(database_url), vault, pool_size=8)
    try:
        waiting = [asyncio.create_task(one(db)) for _ in range(8)]
        await eventually(lambda: vault.fetches > 0)
        vault.gate.set()

        assert await asyncio.gather(*waiting) == [1] * 8
        assert vault.fetches == 1
    finally:
        await db.close()


async def test_a_cancelled_connect_leaves_the_fetch_to_the_others(database_url: str) -> None:
    _, password = account(database_url)
    vault = Vault(password)
    vault.gate = asyncio.Event()
    settings = DatabaseSettings.of(without_password(database_url), environment="serverless")
    engine = build_engine(settings, EngineOptions(credentials=vault.credentials))
    first, second = (asyncio.create_task(scalar(engine, "SELECT 1")) for _ in range(2))
    await eventually(lambda: vault.fetches > 0)

    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    vault.gate.set()

    assert await second == 1
    assert vault.fetches == 1


async def failure(db: Database) -> ConnectFailed:
    with pytest.raises(ConnectFailed) as raised:
        await one(db)
    await db.close()
    return raised.value


async def test_what_the_provider_raises_is_the_cause(network_url: str) -> None:
    vault = Vault("unused")
    vault.error = LookupError("the vault is sealed")

    failed = await failure(database(network_url, vault))

    assert failed.reason is FailureReason.CREDENTIALS
    assert failed.__cause__ is vault.error
    assert "Vault.credentials failed: LookupError: the vault is sealed" in str(failed)


async def test_a_slow_provider_is_named_and_bounded(network_url: str) -> None:
    vault = Vault("unused")
    vault.gate = asyncio.Event()

    failed = await failure(database(network_url, vault, connect_timeout=0.4))

    assert failed.reason is FailureReason.CREDENTIALS
    assert "Vault.credentials" in str(failed)
    assert "no answer within 0.2 s" in str(failed)


async def test_a_provider_that_fails_for_a_moment_is_waited_for(database_url: str) -> None:
    _, password = account(database_url)
    vault = Vault(password)
    vault.options = {"expires_in": 0.05}
    async with database(without_password(database_url), vault) as db:
        vault.error = LookupError("the vault is sealed")
        await asyncio.sleep(0.06)
        db.pool.evict_all()
        waiting = asyncio.create_task(one(db))
        await eventually(lambda: db.pool.snapshot().open_failures_total > 0)
        assert "the vault is sealed" in str(db.pool.snapshot().last_open_error)

        vault.error = None

        assert await waiting == 1


async def test_what_is_no_credentials_is_named_and_not_shown(database_url: str) -> None:
    async def provider() -> Any:
        return "never-shown-4711"

    failed = await failure(
        Database.from_url(
            database_url, environment="testing", telemetry=False, credentials=provider
        )
    )

    assert failed.reason is FailureReason.CREDENTIALS
    assert "Credentials are accepted, not str" in str(failed)
    assert not shows(failed, "4711")


@pytest.mark.parametrize("pooled", ["production", "serverless"])
async def test_the_same_refused_password_is_an_authentication_failure(
    network_url: str, pooled: str
) -> None:
    vault = Vault(secret := secrets.token_hex(8))

    failed = await failure(database(network_url, vault, environment=pooled))

    assert failed.reason is FailureReason.AUTHENTICATION
    assert vault.fetches == 2
    assert not shows(failed, secret)


async def test_a_refused_password_is_not_fetched_for_each_request(database_url: str) -> None:
    vault = Vault("wrong")
    db = database(without_password(database_url), vault, environment="serverless")

    for _ in range(5):
        assert (await failure(db)).reason is FailureReason.AUTHENTICATION

    assert vault.fetches == 2


async def test_two_refused_passwords_are_an_authentication_failure(network_url: str) -> None:
    vault = Vault("first")

    async def ever_another() -> Credentials:
        vault.password = secrets.token_hex(8)
        vault.fetches += 1
        return Credentials(password=vault.password)

    vault.credentials = ever_another  # type: ignore[method-assign]
    failed = await failure(database(network_url, vault))

    assert failed.reason is FailureReason.AUTHENTICATION
    assert vault.fetches == 2
    assert not shows(failed, vault.password)


FAILING: dict[str, Callable[[Vault], None]] = {
    "refused": lambda vault: None,
    "raises": lambda vault: setattr(vault, "error", LookupError("sealed")),
    "expired": lambda vault: vault.options.update(expires_in=-1),
    "silent": lambda vault: setattr(vault, "gate", asyncio.Event()),
}


@pytest.mark.parametrize("environment", ["production", "serverless"])
@pytest.mark.parametrize("how", FAILING)
async def test_no_secret_is_in_a_local_variable_that_an_error_tracker_would_send(
    network_url: str, how: str, environment: str, caplog: pytest.LogCaptureFixture
) -> None:
    vault = Vault(secret := secrets.token_hex(8))
    FAILING[how](vault)
    db = database(network_url, vault, environment=environment, connect_timeout=1)

    failed = await failure(db)

    assert not shows(failed, secret)
    assert secret not in caplog.text


def shows(error: BaseException, secret: str) -> bool:
    """Return whether a traceback with the variables of each frame but this file's shows it."""
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    links, found = [report], secret in "".join(traceback.format_exception(error))
    for link in links:
        links += [each for each in (link.__cause__, link.__context__) if each is not None]
        for frame in link.stack:
            if Path(frame.filename) != Path(__file__) or frame.name == "credentials":
                found |= any(secret in value for value in (frame.locals or {}).values())
    return found


async def test_a_connection_is_replaced_at_the_age_of_its_credentials(database_url: str) -> None:
    _, password = account(database_url)
    vault = Vault(password)
    vault.options = {"max_age": 0.2}
    async with database(without_password(database_url), vault) as db:
        first = await scalar(db.engine, "SELECT pg_backend_pid()")
        assert await scalar(db.engine, "SELECT pg_backend_pid()") == first
        await eventually(lambda: first not in pids(db))
        await db.engine.dispose()
        assert db.pool.age_limit() == 0.2  # the pool that took the place, too
        assert await scalar(db.engine, "SELECT pg_backend_pid()") != first


def pids(db: Database) -> list[int]:
    return [
        slot.content.dbapi_connection.driver_connection.get_server_pid()
        for slot in db.pool.ledger
        if slot.content is not None and slot.content.dbapi_connection is not None
    ]


@pytest.mark.parametrize("form", ["plain", "JSON"])
async def test_a_mounted_file_is_read_again_after_it_was_switched(
    database_url: str, postgres: PostgresServer, tmp_path: Path, form: str
) -> None:
    user, password = account(database_url)

    def mount(version: str, password: str) -> None:
        """As Kubernetes does it: a new directory, and one symbolic link that is switched."""
        content = f'{{"username": "{user}", "password": "{password}"}}'
        folder = tmp_path / version
        folder.mkdir()
        (folder / "login").write_text(content if form == "JSON" else f"{password}\n")
        (tmp_path / "next").symlink_to(version)
        (tmp_path / "next").rename(tmp_path / "..data")

    mount("..1", password)
    (tmp_path / "login").symlink_to("..data/login")
    url = without_password(database_url)
    settings: dict[str, Any] = {"environment": "serverless", "telemetry": False}
    async with Database.from_url(url, credentials_file=tmp_path / "login", **settings) as db:
        assert await one(db) == 1
        postgres.execute(f"ALTER ROLE {user} PASSWORD 'changed'")
        with pytest.raises(ConnectFailed) as raised:
            await one(db)
        assert raised.value.reason is FailureReason.AUTHENTICATION

        mount("..2", "changed")

        assert await one(db) == 1


async def test_without_its_file_the_credentials_of_before_are_used(
    database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "password"
    path.write_text(account(database_url)[1])
    settings = DatabaseSettings.of(without_password(database_url), environment="serverless")
    engine = build_engine(settings, EngineOptions(credentials=file_credentials(path)))
    assert await scalar(engine, "SELECT 1") == 1

    for broken in (path.unlink, lambda: path.write_text(""), lambda: path.write_text("{")):
        broken()
        assert await scalar(engine, "SELECT 1") == 1


async def test_the_probes_of_a_cluster_log_in_as_the_pool_does(
    postgres: PostgresServer, database_url: str
) -> None:
    _, password = account(database_url)
    vault = Vault(password)
    url = make_url(without_password(database_url))
    address = f"{url.host}:{url.port}"
    async with database(without_password(database_url), vault, replicas=address) as db:
        assert db.cluster is not None
        (replica,) = db.cluster.replicas.values()
        await eventually(lambda: replica.look is not None)
        assert db.cluster.primary.look is not None
        assert await scalar(replica.engine, "SELECT 1") == 1

    assert vault.fetches == 1


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("postgresql://h/d", {"credentials": "x"}, "credentials: a function is accepted, not str"),
        (
            "postgresql://h/d",
            {"credentials": Vault("x").credentials, "async_creator": Vault("x").credentials},
            "credentials: an async_creator logs in by itself",
        ),
        ("sqlite://", {"credentials": Vault("x").credentials}, "SQLite has no server"),
        ("sqlite://", {"credentials_file": __file__}, "SQLite has no server"),
        (
            "postgresql://h/d",
            {"credentials": Vault("x").credentials, "credentials_file": __file__},
            "credentials, credentials_file: one of them is accepted",
        ),
        ("postgresql://h/d", {"credentials_file": "/missing"}, "credentials_file='/missing'"),
    ],
)
def test_what_cannot_be_is_refused(url: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Database.from_url(url, **options)
