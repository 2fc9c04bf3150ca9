"""The routes for users and their tokens."""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Response
from fastapi.security import OAuth2PasswordRequestForm
from penstock.fastapi import Reader, WriteSession

from app.models import User
from app.schemas import Token, UserIn, UserOut
from app.security import CurrentUser, authenticate, hash_password, token_of

router = APIRouter(tags=["users"])


@router.post("/users", status_code=201)
async def create_user(data: UserIn, session: WriteSession) -> UserOut:
    hashed = await hash_password(data.password.get_secret_value())
    session.add(user := User(username=data.username, hashed_password=hashed))
    await session.flush()
    return UserOut.model_validate(user)


@router.post("/token")
async def sign_in(
    form: Annotated[OAuth2PasswordRequestForm, Depends()], reader: Reader, response: Response
) -> Token:
    user = await authenticate(reader, form.username.lower(), form.password)
    if user is None:
        raise HTTPException(401, "Incorrect username or password", {"WWW-Authenticate": "Bearer"})
    response.headers["Cache-Control"] = "no-store"  # as RFC 6749 wants
    return Token(access_token=token_of(user))


@router.get("/users/me")
async def read_me(user: CurrentUser) -> UserOut:
    return UserOut.model_validate(user)
