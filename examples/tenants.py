import asyncio

from fastapi import FastAPI, HTTPException, Request
from sqlalchemy import bindparam, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from penstock import Database, SessionContext, query
from penstock.fastapi import Reader, WriteSession, install


class Model(DeclarativeBase): ...


class Note(Model):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(server_default=text("current_setting('app.tenant')"))
    line: Mapped[str]


ROW_LEVEL_SECURITY = (
    "ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE notes FORCE ROW LEVEL SECURITY",  # for the owner as well
    "CREATE POLICY tenant ON notes USING (tenant = current_setting('app.tenant'))",
)


def tenant_of(request: Request) -> SessionContext:
    tenant = request.headers.get("x-tenant")  # a real service takes it from a token it has checked
    if not tenant:
        raise HTTPException(401)
    return SessionContext(settings={"app.tenant": tenant})


database = Database.from_environment()  # with DATABASE_REQUIRES_CONTEXT=app.tenant
app = FastAPI()
install(app, database, session_context=tenant_of)


@app.post("/notes", status_code=201)
async def create(line: str, session: WriteSession) -> None:
    session.add(Note(line=line))  # the server fills in whose it is


lines = query(select(Note.line).where(Note.line.startswith(bindparam("start"))))


@app.get("/notes")
async def search(reader: Reader, start: str = "") -> list[str]:
    return [row.line for row in await reader.all(lines, start=start)]  # this tenant's alone


async def create_tables() -> None:
    async with database, database.engine.begin() as connection:  # the engine is for all tenants
        await connection.run_sync(Model.metadata.create_all)
        for statement in ROW_LEVEL_SECURITY:
            await connection.execute(text(statement))


if __name__ == "__main__":
    asyncio.run(create_tables())
