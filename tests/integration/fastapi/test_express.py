"""The express lane in routes: its dependencies, its answers to errors, and beside sessions."""

from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI
from pydantic import BaseModel, ConfigDict
from sqlalchemy import bindparam, insert, select, text
from tests.integration.fastapi.notes import Note, Onlooker
from tests.servers.web import client_of

import penstock
from penstock import Database, query
from penstock.fastapi import JSONBytes, Reader, Writer, WriteSession, install, reader

BY_ID = query(select(Note).where(Note.id == bindparam("note_id")))
ALL = query(select(Note).order_by(Note.id))
NEW = query(insert(Note).values(text=bindparam("text")).returning(Note))


class NoteOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    text: str


def add_routes(app: FastAPI) -> None:
    @app.get("/notes/{note_id}", response_model=NoteOut)
    async def read(note_id: int, reader: Reader) -> Note:
        return await reader.one(BY_ID, note_id=note_id)

    @app.post("/notes", status_code=201, response_model=NoteOut)
    async def create(note: str, writer: Writer) -> Note:
        return await writer.one(NEW, text=note)


async def test_what_is_left_to_a_background_task_is_run(app: FastAPI, onlooker: Onlooker) -> None:
    @app.post("/notes")
    async def create(writer: Writer, tasks: BackgroundTasks) -> None:
        tasks.add_task(writer.one, NEW, {"text": "one"})
        tasks.add_task(writer.execute, NEW, {"text": "another"})

    async with client_of(app) as client:
        await client.post("/notes")

    assert await onlooker.texts() == ["one", "another"]


async def test_a_route_writes_and_reads(app: FastAPI, onlooker: Onlooker) -> None:
    add_routes(app)
    async with client_of(app) as client:
        created = await client.post("/notes", params={"note": "hello"})
        found = await client.get(f"/notes/{created.json()['id']}")

    assert created.status_code == 201
    assert found.json() == created.json()
    assert await onlooker.texts() == ["hello"]


async def test_a_list_as_json_is_sent_and_documented_as_the_response_model_is(
    app: FastAPI,
) -> None:
    @app.get("/models", response_model=list[NoteOut])
    async def models(reader: Reader) -> Any:
        return await reader.all(ALL)

    @app.get("/json", response_model=list[NoteOut])
    async def json(reader: Reader) -> JSONBytes:
        return JSONBytes(await reader.json(ALL, NoteOut))

    @app.post("/json", response_model=list[NoteOut])
    async def flushed(session: WriteSession, reader: Reader) -> JSONBytes:
        session.add(Note(text="not committed yet"))
        await session.flush()
        return JSONBytes(await reader.json(ALL, NoteOut))

    add_routes(app)
    async with client_of(app) as client:
        await client.post("/notes", params={"note": 'a "note"\n'})
        by_model, by_server = await client.get("/models"), await client.get("/json")
        beside = await client.post("/json")

    assert by_server.content == by_model.content
    assert by_server.headers["content-type"] == by_model.headers["content-type"]
    assert [note["text"] for note in beside.json()] == ['a "note"\n', "not committed yet"]
    documented = {path: get["get"] for path, get in app.openapi()["paths"].items() if "get" in get}
    assert documented["/json"]["responses"].keys() == documented["/models"]["responses"].keys()
    schemas = [
        documented[path]["responses"]["200"]["content"]["application/json"]["schema"]["items"]
        for path in ("/json", "/models")
    ]
    assert schemas[0] == schemas[1] == {"$ref": "#/components/schemas/NoteOut"}


async def test_what_is_missing_is_a_404_and_what_is_there_twice_a_409(app: FastAPI) -> None:
    add_routes(app)
    async with client_of(app) as client:
        await client.post("/notes", params={"note": "once"})
        twice = await client.post("/notes", params={"note": "once"})
        missing = await client.get("/notes/99")

    assert (twice.status_code, twice.json()["code"]) == (409, "unique_violation")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


async def test_a_second_database_has_its_own_lane(app: FastAPI, tables: str) -> None:
    second = Database.from_url(tables, application_name="the second")
    install(app, second, name="second")

    @app.get("/name")
    async def name(lane: Annotated[penstock.express.Reader, Depends(reader("second"))]) -> str:
        return str(await lane.scalar(text("SHOW application_name")))

    async with client_of(app) as client:
        assert (await client.get("/name")).json() == "the second"


async def test_an_override_takes_the_place_of_the_lane(app: FastAPI, lone: Database) -> None:
    @app.get("/size")
    async def size(lane: Reader) -> bool:
        return lane is lone.reader

    async def another() -> penstock.express.Reader:
        return lone.reader

    app.dependency_overrides[reader()] = another
    async with client_of(app) as client:
        assert (await client.get("/size")).json() is True


async def test_a_statement_of_its_own_is_committed_whatever_becomes_of_the_session(
    app: FastAPI, onlooker: Onlooker
) -> None:
    @app.post("/both")
    async def both(session: WriteSession, writer: Writer) -> None:
        await writer.execute(insert(Note), text="by itself")
        session.add(Note(text="of the session"))
        await session.flush()
        raise ValueError

    async with client_of(app) as client:
        assert (await client.post("/both")).status_code == 500

    assert await onlooker.texts() == ["by itself"]
