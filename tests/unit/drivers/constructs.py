"""What SQLAlchemy can say to PostgreSQL: tables of every kind, and statements on them."""

import datetime
import enum
import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ClauseElement, func, select
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    subqueryload,
    with_loader_criteria,
)

NEW_YEAR = datetime.datetime.fromisoformat("2026-01-01")


class Mood(enum.Enum):
    SAD = "sad"
    GLAD = "glad"


class Base(DeclarativeBase):
    """Names that need quotes, and ones that are keywords, among plain ones."""


class Team(Base):
    __tablename__ = "teams"

    id: Mapped[int] = mapped_column(sa.Identity(always=False, start=1), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(20), unique=True, comment="what's 'said' (of it)")
    members: Mapped[list["Member"]] = relationship(back_populates="team")


class Member(Base):
    __tablename__ = "members"
    __table_args__ = (
        sa.UniqueConstraint("name", "team_id", postgresql_nulls_not_distinct=False),
        sa.CheckConstraint("length(name) > 0 AND coalesce(score, 0) >= 0", name="named"),
        sa.Index("by_name", sa.text("lower(name)"), postgresql_where=sa.text("score IS NOT NULL")),
        sa.Index("by_tags", "tags", postgresql_using="gin", postgresql_with={"fastupdate": "off"}),
        sa.Index("by_score", sa.desc("score"), "team_id", postgresql_include=["name"]),
        sa.Index(
            "by_document",
            func.to_tsvector(sa.text("'english'"), sa.text("name")),
            postgresql_using="gin",
        ),
        sa.Index("by_place", "place", postgresql_using="gist"),
        sa.Index("by_hash", "name", postgresql_using="hash"),
        sa.Index("by_pattern", "name", postgresql_ops={"name": "varchar_pattern_ops"}),
        pg.ExcludeConstraint(("during", "&&"), name="apart", using="gist"),
        {"comment": "It's a table"},
    )

    id: Mapped[uuid.UUID] = mapped_column(
        primary_key=True, server_default=func.gen_random_uuid(), default=uuid.uuid4
    )
    team_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("teams.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED")
    )
    name: Mapped[str] = mapped_column(sa.String(50))
    score: Mapped[float | None] = mapped_column(sa.Numeric(10, 2))
    joined: Mapped[datetime.datetime | None] = mapped_column(
        pg.TIMESTAMP(timezone=True, precision=3), server_default=func.now()
    )
    born: Mapped[datetime.date | None]
    wakes: Mapped[datetime.time | None] = mapped_column(pg.TIME(precision=3))
    rests: Mapped[datetime.timedelta | None] = mapped_column(
        pg.INTERVAL(fields="DAY TO SECOND", precision=3)
    )
    mood: Mapped[Mood | None] = mapped_column(sa.Enum(Mood, name="mood"))
    tags: Mapped[list[str] | None] = mapped_column(pg.ARRAY(sa.String(10)))
    data: Mapped[dict[str, Any] | None] = mapped_column(pg.JSONB)
    plain: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON)
    labels: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    flags: Mapped[str | None] = mapped_column(pg.BIT(8, varying=True))
    address: Mapped[str | None] = mapped_column(pg.INET)
    during: Mapped[Any | None] = mapped_column(pg.TSRANGE)
    place: Mapped[Any | None] = mapped_column(pg.INT4RANGE)
    twice: Mapped[float | None] = mapped_column(sa.Computed("score * 2", persisted=True))
    team: Mapped[Team | None] = relationship(back_populates="members")


class Order(Base):
    """Everything about it is a keyword or needs quotes."""

    __tablename__ = "order"
    __table_args__ = (sa.UniqueConstraint("value", "Key"), {"schema": "my schema"})

    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    value: Mapped[str | None] = mapped_column(sa.String(20))
    key: Mapped[str | None] = mapped_column("Key", sa.Text)
    group: Mapped[int | None] = mapped_column("group", sa.SmallInteger)
    temp: Mapped[float | None] = mapped_column("temp", sa.Double)
    set_: Mapped[str | None] = mapped_column("set", sa.CHAR(3))
    column: Mapped[str | None] = mapped_column("a (column)", sa.Text)


parted = sa.Table(
    "parted",
    Base.metadata,
    sa.Column("day", sa.Date, nullable=False),
    sa.Column("amount", sa.Numeric(12, 3, asdecimal=True)),
    sa.Column("type", sa.String(10, collation="C")),
    postgresql_partition_by="RANGE (day)",
)
serials = sa.Table(
    "serials",
    Base.metadata,
    sa.Column("id", sa.Integer, sa.Sequence("serials_seq", start=5, metadata=Base.metadata)),
    sa.Column("number", sa.Integer, primary_key=True),
    postgresql_with={"fillfactor": 70},
)

team = sa.inspect(Team).local_table
T, M, K = Team, Member, Order
other = aliased(Member)
chain = select(M.id, M.team_id).where(M.name == "a").cte("chain", recursive=True)
chain = chain.union_all(select(other.id, other.team_id).where(other.team_id == chain.c.team_id))
first, second = (
    select(T.id).cte("first"),
    select(M.id, M.name).cte("second").prefix_with("MATERIALIZED"),
)
inserted = (
    pg.insert(Team).values(name="cte").on_conflict_do_nothing().returning(T.id).cte("inserted")
)
updated = sa.update(Member).values(score=1).returning(M.id, M.name).cte("updated")
window: dict[str, Any] = {"partition_by": M.team_id, "order_by": M.score.desc()}
rows = sa.values(sa.column("a", sa.Integer), sa.column("b", sa.String(5)), name="some")
upsert = pg.insert(Order).values(id=1, value="a", key="b")
json, tags = M.data, M.tags
document = func.to_tsvector("english", M.name)
elements = func.jsonb_array_elements(json["list"])
unnested = func.unnest(tags).table_valued("tag", with_ordinality="place", name="u").render_derived()
record = (
    func.jsonb_to_recordset(json)
    .table_valued(sa.column("a", sa.Integer), sa.column("b", sa.Numeric(10, 2)), name="r")
    .render_derived(with_types=True)
)

STATEMENTS: Mapping[str, ClauseElement] = {
    "select": select(Member),
    "columns": select(M.id, M.name.label("value"), sa.literal(1), sa.literal("x"), sa.null()),
    "comparisons": select(M.id).where(
        M.name == "a", M.score > 1, M.score.between(1, 2), M.team_id.is_(None), ~(M.name == "b")
    ),
    "distinct": select(M.name).distinct(),
    "distinct on": select(func.lower(M.name), M.id).ext(
        pg.distinct_on(M.team_id, func.lower(M.name))
    ),
    "in": select(M.id).where(M.name.in_(["a", "b"]), M.team_id.not_in([1, 2, 3])),
    "in nothing": select(M.id).where(M.name.in_([])),
    "in tuples": select(M.id).where(sa.tuple_(M.name, M.team_id).in_([("a", 1), ("b", 2)])),
    "in query": select(M.id).where(M.team_id.in_(select(T.id).where(T.name == "a"))),
    "like": select(M.id).where(M.name.like("a%"), M.name.ilike("%b"), M.name.not_like("c")),
    "contains": select(M.id).where(
        M.name.contains("a_b", autoescape=True), M.name.startswith("a"), M.name.icontains("b")
    ),
    "like with an escape": select(M.id).where(M.name.like(r"a\_b", escape="\\")),
    "matches": select(M.id).where(M.name.regexp_match("^a", flags="i"), M.name.match("a & b")),
    "replaced": select(M.name.regexp_replace("a", "b", flags="g"), M.name.collate("C")),
    "concatenation": select(M.name + "a", func.concat(M.name, "b"), M.name.concat("c")),
    "arithmetic": select(M.score * 2 + 1, M.score / 3, -M.score, M.score % 7, M.team_id // 2),
    "bits": select(M.team_id.bitwise_and(3), M.team_id.bitwise_xor(1), M.team_id.op("<<")(2)),
    "casts": select(
        sa.cast(M.score, sa.String(10)).label("s"),
        sa.cast(1, sa.Numeric(10, 2)),
        sa.cast(M.name, pg.ARRAY(sa.String(3))),
        sa.cast(Mood.GLAD, sa.Enum(Mood, name="mood")),
        sa.cast(M.joined, pg.TIMESTAMP(precision=3, timezone=True)),
        sa.cast(datetime.timedelta(days=1), pg.INTERVAL(fields="DAY TO SECOND", precision=3)),
        sa.cast("101", pg.BIT(8, varying=True)),
        sa.type_coerce(M.score, sa.Float).label("f"),
        sa.cast(M.score, sa.Double).label("d"),
    ).where(sa.false()),
    "case": select(
        sa.case((M.score > 1, "high"), (func.length(M.name) > 3, "long"), else_="low"),
        sa.case({"a": 1}, value=M.name, else_=0),
    ),
    "functions": select(
        func.count(),
        func.count(M.id.distinct()),
        func.sum(M.score),
        func.max(func.lower(M.name)),
        func.coalesce(func.avg(M.score), 0),
        func.bool_or(M.score > 1),
    ),
    "times": select(
        func.now(),
        func.current_timestamp(),
        func.clock_timestamp(),
        func.localtimestamp(),
        func.date_trunc("day", M.joined),
        sa.extract("year", M.joined),
        func.age(M.joined),
        M.joined.op("AT TIME ZONE")("UTC"),
        func.to_char(M.joined, "YYYY"),
        func.make_interval(0, 0, 0, 1),
        M.joined + datetime.timedelta(days=1),
        func.current_date(),
    ),
    "texts": select(
        func.upper(M.name),
        func.trim(M.name),
        func.substring(M.name, 1, 2),
        func.left(M.name, 1),
        func.replace(M.name, "a", "b"),
        func.split_part(M.name, " ", 1),
        func.format("%s (%s)", M.name, M.id),
        func.md5(M.name),
        func.char_length(M.name),
        func.greatest(1, 2),
        func.least(1, 2),
        func.nullif(M.name, ""),
    ),
    "identity": select(
        func.current_user(),
        func.session_user(),
        func.current_setting("app.tenant", True),
        func.pg_catalog.current_database(),
        func.version(),
        func.pg_backend_pid(),
    ),
    "settings": select(func.set_config("app.tenant", "5", sa.true())),
    "locks": select(
        func.pg_advisory_xact_lock(func.hashtext("a")), func.pg_try_advisory_xact_lock(1)
    ),
    "group by": select(M.team_id, func.count()).group_by(M.team_id).having(func.count() > 1),
    "rollup": select(M.team_id, M.name, func.count()).group_by(func.rollup(M.team_id, M.name)),
    "cube": select(M.team_id, func.count()).group_by(M.team_id, func.cube(M.team_id, M.name)),
    "grouping sets": select(M.team_id, func.grouping(M.team_id)).group_by(
        func.grouping_sets(sa.tuple_(M.team_id, M.name), sa.tuple_(M.team_id), func.rollup(M.name))
    ),
    "order by": select(M.id).order_by(
        M.name.desc().nulls_last(), func.random(), sa.nulls_first(M.id)
    ),
    "limit": select(M.id).limit(5).offset(10),
    "limit by query": select(M.id).limit(select(func.count()).select_from(T).scalar_subquery()),
    "fetch": select(M.id).order_by(M.id).fetch(5, with_ties=True),
    "fetch expression": select(M.id).order_by(M.id).fetch(func.abs(5)),
    "join": select(M.id, T.name).join(T).where(func.lower(T.name) == "a"),
    "join on a function": select(M.id).join(T, func.lower(T.name) == func.lower(M.name)),
    "outer joins": select(M.id)
    .outerjoin(T, M.team_id == T.id)
    .outerjoin(other, full=True, onclause=sa.true()),
    "nested joins": select(sa.join(M, sa.join(T, K, T.id == K.id), M.team_id == T.id)),
    "subquery": select(select(M.id, M.name).subquery("value").c.name),
    "scalar subquery": select(
        T.id, select(func.count(M.id)).where(M.team_id == T.id).scalar_subquery()
    ),
    "exists": select(T.id).where(select(M.id).where(M.team_id == T.id).exists()),
    "any and all": select(M.id).where(
        M.name == sa.any_(M.tags),
        M.team_id > sa.all_(select(T.id).scalar_subquery()),
        sa.literal("a") == sa.any_(tags),
        M.team_id == sa.any_(sa.cast([1], pg.ARRAY(sa.Integer))),
    ),
    "lateral": select(T.id, sa.true()).join(
        select(M.name).where(M.team_id == T.id).limit(1).lateral("latest"), sa.true()
    ),
    "lateral function": select(M.id, sa.column("value"))
    .select_from(M)
    .join(func.jsonb_array_elements(json).table_valued("value").lateral("each"), sa.true()),
    "cte": select(first.c.id).add_cte(second),
    "two ctes": select(first.c.id, second.c.name).where(second.c.name == func.lower("a")),
    "recursive cte": select(chain.c.id),
    "nested cte": select(select(first.c.id).cte("outer_one", nesting=True).c.id),
    "insert in cte": select(inserted.c.id),
    "update in cte": select(updated.c.id, func.lower(updated.c.name)),
    "union": sa.union(select(M.name), select(T.name)).order_by("name").limit(3),
    "union of unions": sa.union_all(
        sa.union(select(M.name), select(T.name)),
        sa.except_(select(M.name), select(T.name)).subquery().select(),
    ),
    "intersect": sa.intersect(select(M.name), select(T.name), select(func.lower(M.name))),
    "values": select(rows.data([(1, "a"), (2, "b")]).alias("both")),
    "values in a cte": select(rows.data([(1, "a")]).cte("vals")),
    "windows": select(
        func.row_number().over(**window),
        func.lag(M.score, 1, 0).over(**window),
        func.sum(M.score).over(rows=(None, 0), order_by=M.id),
        func.rank().over(range_=(-1, 1), order_by=M.team_id),
        func.first_value(M.name).over(partition_by=func.lower(M.name)),
        func.count().filter(M.score > 1).over(),
        func.ntile(4).over(order_by=M.id),
    ),
    "filter": select(func.count(M.id).filter(M.score > 1, func.lower(M.name) == "a")),
    "within group": select(
        func.percentile_cont(0.5).within_group(M.score.desc()), func.mode().within_group(M.name)
    ),
    "ordered aggregates": select(
        func.array_agg(pg.aggregate_order_by(M.name, M.id.desc())),
        func.string_agg(M.name, pg.aggregate_order_by(sa.literal(","), M.id)),
    ),
    "aggregates": select(
        func.array_agg(pg.aggregate_order_by(M.name, M.id)),
        func.string_agg(M.name, ", "),
        func.json_agg(M.data),
        func.jsonb_object_agg(M.name, M.score),
        func.json_build_object("a", 1),
    ),
    "json": select(
        json["a"],
        json[("a", "b")],
        json["a"].astext,
        json["a"].as_string(),
        json["n"].as_integer(),
        json.has_key("a"),
        json.contains({"a": 1}),
        json.path_exists("$.a"),
        json.op("-")("a"),
        M.plain["a"],
        func.jsonb_set(json, pg.array(["a"]), sa.cast(1, pg.JSONB)),
        json["n"].as_numeric(10, 2),
        json.delete_path(pg.array(["a"])),
        func.to_jsonb(M.name),
        func.row_to_json(sa.text("members")),
        func.jsonb_path_query_array(json, sa.cast("$.a[*] ? (@ > 1)", pg.JSONPATH)),
        json["a"].as_json(),
        json["b"].as_boolean(),
    ).where(sa.false()),
    "arrays": select(
        tags[1],
        tags[1:2],
        pg.array([1, 2]) + pg.array([3]),
        tags.contains(["a"]),
        tags.overlap(["b"]),
        func.array_length(tags, 1),
        func.array_append(tags, "a"),
        func.cardinality(tags),
        pg.array([M.name, "x"]),
        pg.array([], type_=sa.Integer),
        func.array_position(tags, "a"),
        func.array_to_string(tags, ","),
        func.array(select(M.id).scalar_subquery()),
    ).where(sa.false()),
    "unnest": select(unnested.c.tag, unnested.c.place).select_from(M).join(unnested, sa.true()),
    "record": select(M.id, record.c.a).join(record, sa.true()),
    "column valued": select(func.generate_series(1, 10).column_valued("x"), func.unnest(tags)),
    "table valued": select(
        func.generate_series(1, 10, 2).table_valued("value").render_derived().c.value
    ),
    "scalar table valued": select(M.id, func.jsonb_each(M.data).scalar_table_valued("key")),
    "full text": select(M.id, func.ts_rank(document, func.plainto_tsquery("a"))).where(
        document.op("@@")(func.websearch_to_tsquery("english", "a b")),
        document.bool_op("@@")(func.to_tsquery("a")),
        func.ts_headline(M.name, func.phraseto_tsquery("a b")) != "",
    ),
    "ranges": select(
        M.during.contains(NEW_YEAR),
        func.lower(M.during),
        func.upper(M.place),
        M.during.overlaps(pg.Range(NEW_YEAR)),
        func.isempty(M.place),
    ),
    "network": select(
        func.host(M.address), M.address.op("<<")(sa.cast("10.0.0.0/8", pg.CIDR))
    ).where(sa.false()),
    "for update": select(M.id).with_for_update(of=M, skip_locked=True),
    "for key share": select(M.id).with_for_update(read=True, key_share=True, nowait=True),
    "tablesample": select(sa.tablesample(team, func.bernoulli(5), name="few", seed=func.pi()).c.id),
    "system sample": select(sa.tablesample(team, func.system(5), name="few").c.id),
    "hints": select(M.id).prefix_with("ALL").suffix_with("FOR SHARE"),
    "keywords": select(Order).where(K.temp > 1, K.group == 2, K.set_ == "a", K.key == "b"),
    "keyword functions": select(func.lower(K.key), func.concat(K.value, K.column)).group_by(
        K.value, K.key, K.column
    ),
    "loads": select(Team).options(joinedload(T.members)).order_by(T.name),
    "loader criteria": select(Team).options(
        selectinload(T.members), with_loader_criteria(Member, func.lower(M.name) == "a")
    ),
    "subquery loads": select(Team).options(subqueryload(T.members)),
    "text": sa.text(
        "SELECT id, name FROM members WHERE name = :name AND team_id = CAST(:team AS int)"
    ).bindparams(name="a", team=1),
    "text with columns": select(sa.text("lower(m.name) AS n")).select_from(sa.text("members AS m")),
    "literal column": select(sa.literal_column("count(*) FILTER (WHERE score > 1)")).select_from(M),
    "insert": sa.insert(Team).values(name="insert"),
    "insert returning": sa.insert(Member)
    .values(name="x", data={"a": 1})
    .returning(M.id, func.lower(M.name)),
    "insert defaults": sa.insert(serials).values(number=sa.func.nextval("serials_seq")),
    "insert functions": sa.insert(Member).values(
        name=func.lower("A"), joined=func.now(), tags=pg.array(["a"])
    ),
    "insert rows": sa.insert(Team).values([{"name": "row 1"}, {"name": "row 2"}]),
    "insert from select": sa.insert(Team).from_select(
        ["name"], select(func.concat(M.name, "!")).distinct()
    ),
    "insert from cte": sa.insert(Order).from_select(["id"], select(first.c.id)).returning(K.id),
    "insert keywords": sa.insert(Order).values(
        id=7, value="a", key="k", group=1, temp=1.5, column="c"
    ),
    "upsert": upsert.on_conflict_do_update(
        index_elements=[K.id],
        set_={"value": upsert.excluded.value, "temp": func.random()},
        where=func.length(K.value) < 50,
    ),
    "upsert constraint": pg.insert(Team)
    .values(name="x")
    .on_conflict_do_update(constraint="teams_name_key", set_={T.name: func.lower(T.name)})
    .returning(T.id),
    "upsert expression": pg.insert(Order)
    .values(id=1)
    .on_conflict_do_nothing(index_elements=["id"], index_where=sa.text("value IS NOT NULL")),
    "update": sa.update(Member)
    .where(M.name == "a")
    .values(score=M.score + 1, name=func.lower(M.name)),
    "update from": sa.update(Member).where(M.team_id == T.id, T.name == "a").values(name=T.name),
    "update returning": sa.update(Order).values(temp=func.abs(K.temp)).returning(Order),
    "update from query": sa.update(Team)
    .values(name=select(func.max(M.name)).scalar_subquery())
    .where(sa.false()),
    "update ordered": sa.update(Order)
    .ordered_values((K.value, "a"), (K.key, func.upper("b")))
    .where(sa.false()),
    "update json": sa.update(Member).values({M.data["a"]: 1}).where(sa.false()),
    "delete": sa.delete(Member).where(M.score < 0),
    "delete using": sa.delete(Member).where(M.team_id == T.id, func.lower(T.name) == "z"),
    "delete returning": sa.delete(Order).where(K.id.in_([1, 2])).returning(K.id, K.value),
    "delete by cte": sa.delete(Team).where(T.id.in_(select(first.c.id))).where(sa.false()),
}
"""Every one runs on empty tables."""

BATCHES: Mapping[str, tuple[ClauseElement, list[dict[str, Any]]]] = {
    "executemany": (sa.insert(serials), [{"number": n} for n in range(100, 110)]),
    "returning": (sa.insert(Team).returning(T.id), [{"name": f"r{n}"} for n in range(2_500)]),
    "returning sorted": (
        sa.insert(Team).returning(T.id, T.name, sort_by_parameter_order=True),
        [{"name": f"s{n}"} for n in range(2_500)],
    ),
    "returning keywords": (
        sa.insert(Order).returning(K.id, sort_by_parameter_order=True),
        [{"id": n, "value": str(n), "key": "k", "column": "it's"} for n in range(3_000, 3_010)],
    ),
    "upsert returning": (
        pg.insert(Team)
        .on_conflict_do_update(index_elements=["name"], set_={"name": func.lower(T.name)})
        .returning(T.id),
        [{"name": f"r{n}"} for n in range(20)],
    ),
    "update": (
        sa.update(Team).where(T.name == sa.bindparam("n")).values(name=sa.bindparam("m")),
        [{"n": f"r{n}", "m": f"u{n}"} for n in range(10)],
    ),
}
"""Statements that are run with many rows at once."""
