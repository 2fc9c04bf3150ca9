"""Passwords as Argon2 hashes, and tokens that name their user."""

import os
import secrets
from datetime import UTC, datetime
from typing import Annotated

import jwt
from anyio import CapacityLimiter, to_thread
from fastapi import Depends, HTTPException
from fastapi.security import OAuth2PasswordBearer
from penstock import query
from penstock.fastapi import Reader
from pwdlib import PasswordHash
from sqlalchemy import bindparam, select

from app.models import User
from app.settings import settings

ALGORITHM = "HS256"
passwords = PasswordHash.recommended()
# For names that nobody has: an answer takes as long, and does not tell.
nobodys_hash = passwords.hash(secrets.token_urlsafe())
# A hash takes a processor for some 50 ms, and 64 MiB.
hashing = CapacityLimiter(os.cpu_count() or 1)

user_by_id = query(select(User).where(User.id == bindparam("user_id"), User.is_active))
user_by_name = query(select(User).where(User.username == bindparam("username"), User.is_active))

oauth2 = OAuth2PasswordBearer(tokenUrl="token")


class Hash(str):
    """A password's hash, of which logs of statements show nothing."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


async def hash_password(password: str) -> Hash:
    """Call it before the session's first statement: from then on a connection is held."""
    return Hash(await to_thread.run_sync(passwords.hash, password, limiter=hashing))


async def authenticate(reader: Reader, username: str, password: str) -> User | None:
    user = await reader.one_or_none(user_by_name, username=username)
    # The reader's connection is back in the pool by now.
    expected = nobodys_hash if user is None else user.hashed_password
    is_right = await to_thread.run_sync(passwords.verify, password, expected, limiter=hashing)
    return user if is_right else None


def token_of(user: User) -> str:
    now = datetime.now(UTC)
    claims = {"sub": str(user.id), "iat": now, "exp": now + settings.token_lifetime}
    return jwt.encode(claims, settings.secret_key.get_secret_value(), ALGORITHM)


async def current_user(token: Annotated[str, Depends(oauth2)], reader: Reader) -> User:
    try:
        claims = jwt.decode(
            token,
            settings.secret_key.get_secret_value(),
            algorithms=[ALGORITHM],
            options={"require": ["exp", "sub"]},
        )
        user = await reader.one_or_none(user_by_id, user_id=int(claims["sub"]))
    except (jwt.InvalidTokenError, ValueError):
        user = None
    if user is None:
        raise HTTPException(401, "Not authenticated", {"WWW-Authenticate": "Bearer"})
    return user


CurrentUser = Annotated[User, Depends(current_user)]
