"""When a provider is asked, on a clock of the test's own."""

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from tests.eventually import eventually

from penstock.credentials import Credentials, Server
from penstock.credentials.cache import CredentialCache, CredentialSource
from penstock.credentials.provider import CredentialsFailed
from penstock.errors import SettingsError

START = 1_000_000.0


class Provider:
    """Brings a new password each time, unless told otherwise."""

    def __init__(self, life: float | None = None) -> None:
        self.now, self.life = START, life
        self.asked = 0
        self.same: str | None = None
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.cache = CredentialCache(self, 5.0, clock=lambda: self.now)

    async def __call__(self) -> Credentials:
        self.asked += 1
        password = self.same or f"password {self.asked}"
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        expires_at = None if self.life is None else self.now + self.life
        return Credentials(password=password, expires_at=expires_at)

    async def get(self) -> str:
        return (await self.cache.get(5.0)).password.get_secret_value()

    async def renewed(self, refused: str, seconds: float = 5.0) -> str | None:
        found = await self.cache.renew(Credentials(password=refused), seconds)
        return None if found is None else found.password.get_secret_value()


@pytest.mark.parametrize(
    ("life", "after", "asked", "password"),
    [
        (None, 1e9, 1, "password 1"),
        (900, 839, 1, "password 1"),
        (900, 841, 2, "password 1"),  # in the background: 60 s are left
        (900, 899, 2, "password 1"),
        (900, 900, 2, "password 2"),  # expired: the connect waits
        (10, 7.9, 1, "password 1"),
        (10, 8.1, 2, "password 1"),  # a fifth is left
        (10, 10, 2, "password 2"),
    ],
)
async def test_credentials_are_renewed_before_they_expire(
    life: float | None, after: float, asked: int, password: str
) -> None:
    provider = Provider(life)
    assert await provider.get() == "password 1"

    provider.now += after

    assert await provider.get() == password
    await eventually(lambda: provider.asked == asked)
    await asyncio.sleep(0)
    assert await provider.get() == f"password {asked}"
    assert provider.asked == asked


async def test_credentials_in_use_are_renewed_without_a_connect() -> None:
    provider = Provider(0.05)
    provider.cache = CredentialCache(provider, 5.0)
    provider.now = time.time()
    await provider.get()

    await eventually(lambda: provider.asked == 2)


async def test_credentials_that_no_connect_has_needed_are_left_to_expire() -> None:
    provider = Provider(900)
    first = await provider.cache.get(5.0)
    provider.cache.renew_used(first)
    await eventually(lambda: provider.asked == 2)
    await asyncio.sleep(0)

    second = provider.cache._current
    assert second is not None
    assert second is not first
    provider.cache.renew_used(second)
    await asyncio.sleep(0.01)

    assert provider.asked == 2


async def test_a_renewal_that_fails_is_told_and_leaves_those_of_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    provider = Provider(900)
    await provider.get()
    provider.now += 850
    provider.error = LookupError("sealed")

    for _ in range(3):
        assert await provider.get() == "password 1"
        await asyncio.sleep(0.001)

    assert provider.asked == 2
    assert [record.getMessage() for record in caplog.records] == [
        "the credentials provider Provider failed to renew them: LookupError: sealed"
    ]


async def test_refused_credentials_are_fetched_once_for_all_who_were_refused() -> None:
    provider = Provider()
    await provider.get()

    renewed = await asyncio.gather(*(provider.renewed("password 1") for _ in range(10)))

    assert renewed == ["password 2"] * 10
    assert await provider.renewed("password 1") == "password 2"
    assert provider.asked == 2


async def test_a_fetch_that_began_before_the_change_is_repeated() -> None:
    provider = Provider(10)
    provider.same = "old"
    await provider.get()
    provider.now += 9
    provider.gate.clear()
    await provider.get()  # begins a renewal that brings the old one
    await eventually(lambda: provider.asked == 2)
    refused = asyncio.create_task(provider.renewed("old"))
    await asyncio.sleep(0)

    provider.same = "new"
    provider.gate.set()

    assert await refused == "new"
    assert provider.asked == 3


async def test_a_provider_that_brings_the_refused_again_is_left_alone() -> None:
    provider = Provider()
    provider.same = "old"
    await provider.get()

    for _ in range(5):
        assert await provider.renewed("old") is None

    assert provider.asked == 2


async def test_a_change_is_noticed_once_the_provider_may_be_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penstock.credentials.cache.CONFIRMED_FOR", 0.0)
    provider = Provider()
    provider.same = "old"
    await provider.get()
    assert await provider.renewed("old") is None

    provider.same = "new"

    assert await provider.renewed("old") == "new"


async def test_one_who_waits_too_long_leaves_the_fetch_to_the_others() -> None:
    provider = Provider()
    provider.gate.clear()
    patient = asyncio.create_task(provider.get())

    with pytest.raises(CredentialsFailed, match=r"gave no answer within 0\.01 s"):
        await provider.cache.get(0.01)
    provider.gate.set()

    assert await patient == "password 1"
    assert provider.asked == 1


def test_each_event_loop_fetches_for_itself_and_all_use_what_was_brought() -> None:
    provider = Provider()
    assert asyncio.run(provider.get()) == "password 1"
    assert asyncio.run(provider.get()) == "password 1"

    async def abandon() -> None:
        provider.gate = asyncio.Event()
        task = asyncio.create_task(provider.renewed("password 1"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(abandon())
    provider.gate = asyncio.Event()
    provider.gate.set()

    assert asyncio.run(provider.renewed("password 1")) == "password 3"
    assert provider.cache._fetching == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # other tests' threads
def test_a_forked_process_uses_what_was_brought() -> None:
    provider = Provider()
    asyncio.run(provider.get())
    process = os.fork()
    if process == 0:
        try:
            os._exit(0 if asyncio.run(provider.get()) == "password 1" else 1)
        finally:
            os._exit(2)

    assert os.waitpid(process, 0)[1] == 0


async def test_no_frame_of_the_provider_is_kept_but_its_place_is_noted() -> None:
    provider = Provider()
    provider.error = LookupError("sealed")

    with pytest.raises(CredentialsFailed) as raised:
        await provider.get()

    assert raised.value.__cause__ is provider.error
    assert provider.error.__traceback__ is None
    assert "raise self.error" in provider.error.__notes__[0]


A = Server((("a", 5432),), "app", is_encrypted=True, is_postgresql=True)
B = Server((("b", 5432),), "app", is_encrypted=True, is_postgresql=True)


def test_servers_share_a_cache_unless_the_provider_has_one_for_each() -> None:
    class Each:
        def for_server(self, server: Server) -> Provider:
            return Provider()

    shared, each = CredentialSource(Provider(), 5.0), CredentialSource(Each(), 5.0)

    assert shared.cache_of(A) is shared.cache_of(B)
    assert each.cache_of(A) is each.cache_of(A)
    assert each.cache_of(A) is not each.cache_of(B)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"password": ""}, "password: a text that is not empty"),
        ({"password": 4711}, "password: a text that is not empty"),
        ({"password": "x", "expires_at": 1, "expires_in": 1}, "one of them is accepted"),
        ({"password": "x", "expires_at": datetime(2030, 1, 1)}, "with a time zone"),  # noqa: DTZ001
        ({"password": "x", "max_age": 0}, "max_age=0: a number of seconds above 0"),
    ],
)
def test_wrong_credentials_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Credentials(**given)


def test_the_end_of_credentials_may_be_a_moment_or_a_time_from_now() -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)

    assert Credentials(password="x", expires_at=moment).expires_at == moment.timestamp()
    for hour in (3600, timedelta(hours=1)):
        left = Credentials(password="x", expires_in=hour).expires_at - time.time()
        assert 3590 < left <= 3600


def test_a_password_is_in_no_repr() -> None:
    for password in ("never-shown", SecretStr("never-shown")):
        assert "never-shown" not in repr(Credentials(user="app", password=password))
