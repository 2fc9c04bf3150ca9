import asyncio
import os
import threading

from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type
from pydantic import SecretStr

from penstock.demo.users.model import Passwords

PASSWORD = SecretStr("correct horse battery staple")


async def test_a_hash_is_of_the_password_and_has_owasps_parameters() -> None:
    hashed = await Passwords().hash(PASSWORD)

    parameters = extract_parameters(hashed)
    assert PasswordHasher().verify(hashed, PASSWORD.get_secret_value())
    assert (parameters.type, parameters.memory_cost) == (Type.ID, 19 * 1024)
    assert (parameters.time_cost, parameters.parallelism) == (2, 1)


async def test_two_hashes_of_one_password_differ() -> None:
    passwords = Passwords()

    assert await passwords.hash(PASSWORD) != await passwords.hash(PASSWORD)


async def test_a_hash_does_not_show_itself_in_a_log() -> None:
    hashed = await Passwords().hash(PASSWORD)

    assert repr({"hashed_password": hashed}) == "{'hashed_password': '***'}"


async def test_the_event_loop_runs_on_while_a_password_is_hashed() -> None:
    hashing = asyncio.create_task(Passwords().hash(PASSWORD))
    turns = 0
    while not hashing.done():
        await asyncio.sleep(0)
        turns += 1

    assert turns > 10


async def test_no_more_hashes_are_made_at_once_than_there_are_processors() -> None:
    passwords = Passwords()
    before = threading.active_count()
    hashing = asyncio.gather(*(passwords.hash(PASSWORD) for _ in range(20)))
    most = 0
    while not hashing.done():
        await asyncio.sleep(0)
        most = max(most, threading.active_count() - before)

    assert len(set(await hashing)) == 20
    assert 1 <= most <= (os.cpu_count() or 1)
