"""JSON that PostgreSQL writes: of every statement and model what rows would become, or refused."""

import datetime as dt
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    NaiveDatetime,
    PrivateAttr,
    RootModel,
    SecretStr,
    computed_field,
    create_model,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from sqlalchemy import (
    ARRAY,
    CHAR,
    JSON,
    BigInteger,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    Select,
    Text,
    Time,
    Uuid,
    bindparam,
    cast,
    column,
    desc,
    event,
    func,
    insert,
    literal,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria
from tests.integration.express.entity_statements import STATEMENTS, everybody
from tests.integration.express.json_kinds import Color, by_model, by_server, readings
from tests.integration.express.staff import Order, Point, Team, User, staff_database

from penstock import Database, query
from penstock.deadlines import DeadlineExceeded
from penstock.errors import ParameterError, QueryRefused
from penstock.express import JsonQuery
from penstock.testing import rollback_after

pytestmark = pytest.mark.asyncio(loop_scope="module")
TYPES: dict[str, Any] = {
    **dict.fromkeys(["id", "age", "team_id", "score", "customer_id", "number", "year"], int),
    **dict.fromkeys(["budget", "points", "value", "length", "trick"], int),
    **dict.fromkeys(["name", "biography", "greeting", "shout", "nick", "kind", "language"], str),
    **dict.fromkeys(["x", "email", "rebuilt_as", "after_listeners", "city", "secret"], str),
    "is_adult": bool,
}
REFUSED = {
    # Their results are no flat objects,
    *("tuples", "tuples_outer", "tuples_full", "self_join", "self_join_next", "count", "exists"),
    *("bundle", "bundle_and_entity", "null_entity", "entity_and_value", "in_a_tuple"),
    # take several rows or statements,
    *("joined_collection", "joined_limited", "joined_two", "joined_deep", "contains_many"),
    *("contains_alias", "criteria_joined", "selectinload", "subqueryload", "immediateload"),
    *("nested", "nested_subquery", "polymorphic_selectin", "selectin_polymorphic"),
    # are made by Python,
    *("composite", "reconstructed", "listened", "single_base", "single_sub", "single_tuple"),
    *("joined_base", "joined_sub", "with_polymorphic", "with_polymorphic_flat"),
    # or are one instance for several rows; or the statement is none that a WITH takes.
    *("aliased_subquery", "union_alias"),
    *("from_statement", "from_some_columns", "from_typed", "from_union"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(module_url: str) -> AsyncIterator[Database]:
    async with staff_database(module_url) as database:
        yield database


def model_of(_config: Any = None, **fields: Any) -> Any:
    given: Any = {
        name: kind if isinstance(kind, tuple) else (kind, ...) for name, kind in fields.items()
    }
    return create_model("Out", __config__=_config, **given)


def written_fields(statement: Any) -> Iterator[str]:
    for name, kind in TYPES.items():
        try:
            JsonQuery(statement, model_of(**{name: kind | None}))
        except QueryRefused:
            continue
        yield name


@pytest.mark.parametrize("name", STATEMENTS)
async def test_each_statement_is_written_as_its_rows_would_be_or_refused(
    database: Database, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = query(STATEMENTS[name])
    fields = list(written_fields(STATEMENTS[name]))
    assert bool(fields) is (name not in REFUSED)

    model = model_of(**{name: TYPES[name] | None for name in fields})
    if fields:
        expected = await by_model(database.reader, rows, model)
        assert await by_server(database.reader, rows, model) == expected
        assert isinstance(expected, bytes)
        assert not readings(caplog)


async def test_an_instance_that_is_missing_is_no_object_of_nulls(database: Database) -> None:
    rows = query(select(Team).select_from(User).outerjoin(User.team).order_by(User.id))
    model = model_of(name=str | None)

    expected = await by_model(database.reader, rows, model)
    assert isinstance(expected, type)
    assert await by_server(database.reader, rows, model) is expected


IS_UPPER = ConfigDict(alias_generator=str.upper, populate_by_name=True, frozen=True)
MODELS = {
    "no fields": (everybody, model_of()),
    "serialization alias": (everybody, model_of(id=(int, Field(serialization_alias='I"\\d é')))),
    "validation alias": (everybody, model_of(number=(int, Field(validation_alias="id")))),
    "alias of a label": (select(User.id.label("i")), model_of(id=(int, Field(alias="i")))),
    "generated aliases": (everybody, model_of(IS_UPPER, id=int, name=str)),
    "alias before name": (
        select(User.id, User.age.label("ID")).where(User.id == 1),
        model_of(IS_UPPER, id=int),
    ),
    "defaults": (
        everybody,
        model_of(
            id=int,
            none=(int | None, None),
            model=(model_of(x=int) | None, None),
            color=(Color, Color.BLUE),
            again=(Color, Color.RED),
            text=(str, "'\"\\{c}"),
            decimal=(Decimal, Decimal("1.0")),
        ),
    ),
    "built later": (everybody, model_of(ConfigDict(defer_build=True), id=int)),
    "default beside a NULL": (everybody, model_of(age=(int | None, 5), team_id=(int | None, 6))),
}


@pytest.mark.parametrize("name", MODELS)
async def test_models_name_their_fields_and_defaults(
    database: Database, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    statement, model = MODELS[name]
    rows = query(statement)

    assert await by_server(database.reader, rows, model) == await by_model(
        database.reader, rows, model
    )
    assert not readings(caplog)


class Validated(BaseModel):
    """Changes a value."""

    id: int

    @field_validator("id")
    @classmethod
    def changed(cls, value: int) -> int:
        return value + 1


class Checked(BaseModel):
    """Looks at the whole."""

    id: int

    @model_validator(mode="after")
    def checked(self) -> Any:
        return self


class Serialized(BaseModel):
    """Writes a value otherwise."""

    id: int

    @field_serializer("id")
    def changed(self, value: int) -> int:
        return value + 1


class Wholly(BaseModel):
    """Writes the whole otherwise."""

    id: int

    @model_serializer
    def changed(self) -> dict[str, int]:
        return {}


class Computed(BaseModel):
    """Has more than its fields."""

    id: int

    @computed_field
    def more(self) -> int:
        return self.id


class Private(BaseModel):
    """Has something of its own."""

    id: int
    _more: int = PrivateAttr(1)


class Made(BaseModel):
    """Is made otherwise."""

    id: int

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)


def of_type(kind: Any) -> Select[Any]:
    return select(column("x", kind))


NOT_WRITTEN: dict[str, tuple[Any, Any]] = {
    **{each.__name__: (everybody, each) for each in (Validated, Checked, Serialized, Wholly)},
    **{each.__name__: (everybody, each) for each in (Computed, Private, Made, RootModel[int])},
    **{
        f"id as {kind}": (everybody, model_of(id=kind))
        for kind in (str, float, bool, Decimal, bytes, Any, int | str, SecretStr, dict, set[int])
    },
    **{
        f"name with {options}": (everybody, model_of(name=(str, Field(**options))))
        for options in (
            {"pattern": "a"},
            {"strict": True},
            {"exclude": True},
            {"alias": "Name"},
            {"validation_alias": AliasChoices("name", "nick")},
            {"default_factory": str, "validation_alias": "missing"},
            {"default": "", "validate_default": True},
        )
    },
    **{
        f"model with {options}": (everybody, model_of(options, name=str))
        for options in (
            {"extra": "forbid"},
            {"extra": "allow"},
            {"strict": True},
            {"str_strip_whitespace": True},
            {"str_max_length": 5},
            {"ser_json_temporal": "seconds"},
        )
    },
    "dataclass": (everybody, Point),
    "enum's values": (
        select(User.name.label("x")),
        model_of(ConfigDict(use_enum_values=True), x=Color),
    ),
    "enum of another column": (select(User.id), model_of(id=Color)),
    "multiples": (everybody, model_of(id=(int, Field(multiple_of=2)))),
    "infinite limit": (
        of_type(Numeric()),
        model_of(x=(Decimal, Field(lt=Decimal("Infinity")))),
    ),
    "nested model": (everybody, model_of(team=model_of(name=str))),
    "nested models": (select(User.id), model_of(id=list[Validated])),
    "model of a column": (select(User.id), model_of(id=model_of(name=str) | None)),
    "models of an enum": (of_type(Enum(Color)), model_of(x=list[Validated])),
    "model of an enum": (of_type(Enum(Color)), model_of(x=model_of(name=str))),
    "list of enums": (of_type(ARRAY(Enum("a", "b", native_enum=False))), model_of(x=list[str])),
    "default list": (everybody, model_of(more=(list[int], [1]))),
    "relationship": (everybody, model_of(team=Any)),
    "missing": (everybody, model_of(missing=int)),
    "hybrid": (everybody, model_of(is_adult=bool)),
    "synonym": (everybody, model_of(nick=str)),
    "deferred": (everybody, model_of(biography=str | None)),
    "metadata": (everybody, model_of(metadata=str)),
    "star": (select(text("*")).select_from(User), model_of(id=int)),
    "text": (text("SELECT 1 AS id"), model_of(id=int)),
    "insert": (insert(User).returning(User.id), model_of(id=int)),
    "aware as naive": (of_type(DateTime(timezone=True)), model_of(x=NaiveDatetime)),
    "datetime as date": (of_type(DateTime()), model_of(x=dt.date)),
    "datetime as str": (of_type(DateTime()), model_of(x=str)),
    "timetz": (of_type(Time(timezone=True)), model_of(x=dt.time)),
    "interval": (of_type(Interval()), model_of(x=dt.timedelta)),
    "bytes": (of_type(LargeBinary()), model_of(x=bytes)),
    "json": (of_type(JSON()), model_of(x=dict[str, int])),
    "char": (of_type(CHAR(3)), model_of(x=str)),
    "citext": (of_type(CITEXT()), model_of(x=str)),
    "uuid as str": (of_type(Uuid(as_uuid=False)), model_of(x=str)),
    "numeric as float": (of_type(Numeric(asdecimal=False)), model_of(x=float)),
    "float as decimal": (of_type(Float(asdecimal=True)), model_of(x=Decimal)),
    "no type": (select(func.row_number().over().label("x")), model_of(x=int)),
    "list of decimals": (of_type(ARRAY(Numeric)), model_of(x=list[Decimal])),
    "list of optionals": (of_type(ARRAY(Integer)), model_of(x=list[int | None])),
    "list of others": (of_type(ARRAY(Integer)), model_of(x=list[str])),
    "limited list": (of_type(ARRAY(Integer)), model_of(x=(list[int], Field(max_length=2)))),
    "list of tuples": (of_type(ARRAY(Integer, as_tuple=True)), model_of(x=list[int])),
}


@pytest.mark.parametrize("name", NOT_WRITTEN)
async def test_what_is_not_known_to_be_written_the_same_is_refused(name: str) -> None:
    with pytest.raises(QueryRefused):
        JsonQuery(*NOT_WRITTEN[name])


Out = model_of(id=int, name=str)
some = query(everybody.where(User.id.in_(bindparam("ids", expanding=True))))


async def test_values_are_given_as_for_every_query(database: Database) -> None:
    reader, written = database.reader, JsonQuery(some, Out)
    for ids in ([1], [1, 3], [], [2, 3, 1]):
        expected = await by_model(reader, some, Out, ids=ids)
        assert await reader.json(some, Out, ids=ids) == expected
        assert await reader.json(some, Out, {"ids": ids}) == expected
        assert await reader.json(written, ids=ids) == expected
    with pytest.raises(ParameterError):
        await reader.json(written)


async def test_what_is_not_prepared_is_refused(database: Database) -> None:
    written = JsonQuery(everybody, Out)
    unfit: list[Any] = [(everybody, Out), (query(everybody), None), (written, Team)]
    for given in unfit:
        with pytest.raises(QueryRefused):
            await database.reader.json(*given)
    with pytest.raises(QueryRefused):
        await database.reader.all(written)  # type: ignore[call-overload]  # whatever it is


async def test_the_order_is_that_of_the_statement_also_in_parallel(database: Database) -> None:
    oid = cast(column("oid"), BigInteger)
    functions = select(oid.label("id")).select_from(text("pg_proc"))
    rows = query(functions.order_by(desc(column("proname")), "id"))
    parallel = dict.fromkeys(
        ["parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"], "0"
    )
    reader = database.reader.with_context(settings=parallel)
    model = model_of(id=int)

    assert await reader.json(rows, model) == await by_model(reader, rows, model)


async def test_snapshots_contexts_limits_and_sessions_take_it(database: Database) -> None:
    rows = query(select(User.id, literal("x").label("name")).order_by(User.id))
    expected = await by_model(database.reader, rows, Out)
    async with database.reader.snapshot() as snapshot:
        assert await snapshot.json(rows, Out) == expected
    tenant = database.reader.with_context(settings={"app.tenant": "7"})
    setting = func.current_setting("app.tenant", type_=User.name.type).label("name")
    of_tenant = query(select(literal(1).label("id"), setting))
    assert await tenant.json(of_tenant, Out) == b'[{"id":1,"name":"7"}]'
    assert await database.reader.with_timeout(5).json(rows, Out) == expected
    slow = query(select(User.id, cast(func.pg_sleep(9), Text).label("name")))
    with pytest.raises(DeadlineExceeded):
        await database.reader.with_timeout(0.05).json(slow, Out)
    async with rollback_after(database):
        assert await database.reader.json(rows, Out) == expected


@pytest.mark.parametrize("driver", ["psycopg", "aiosqlite"])
async def test_other_drivers_read_rows(
    database: Database, module_url: str, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = module_url.replace("asyncpg", driver)
    if driver == "aiosqlite":
        url = "sqlite+aiosqlite:///:memory:"
    rows = query(select(literal(1).label("id"), literal('"é').label("name")))
    async with Database.from_url(url, environment="testing") as other:
        assert await other.reader.json(rows, Out) == '[{"id":1,"name":"\\"é"}]'.encode()
    assert not readings(caplog)


async def test_what_listeners_leave_out_is_not_written(database: Database) -> None:
    def first_only(state: ORMExecuteState) -> None:
        state.statement = state.statement.options(with_loader_criteria(User, User.id == 1))

    rows = query(everybody)
    whole = await database.reader.json(rows, Out)
    event.listen(Session, "do_orm_execute", first_only)
    try:
        assert await database.reader.json(rows, Out) == b'[{"id":1,"name":"user 1"}]'
    finally:
        event.remove(Session, "do_orm_execute", first_only)
    assert await database.reader.json(rows, Out) == whole


async def test_a_changed_table_is_written_as_it_is_then(database: Database) -> None:
    rows = query(select(Order.customer_id).order_by(Order.year, Order.number))
    model = model_of(customer_id=int | None)
    before = await database.reader.json(rows, model)
    for kind in ("text", "bigint", "integer"):
        async with database.engine.begin() as connection:
            await connection.execute(
                text(
                    "ALTER TABLE orders DROP CONSTRAINT IF EXISTS orders_customer_id_fkey, "
                    f"ALTER customer_id TYPE {kind} USING customer_id::{kind}"
                )
            )
        assert await database.reader.json(rows, model) == before
