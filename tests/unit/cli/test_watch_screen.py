"""What the screen shows, in every size."""

import io
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text
from tests.unit.cli.live_service import database, document

from penstock.watch import Document, Lost, Screen, WatchError


def lines_of(
    *news: dict[str, Any] | Lost,
    width: int = 80,
    height: int | None = 24,
    moments: tuple[float, ...] = (0.0,),
    encoding: str = "utf-8",
) -> list[str]:
    """The screen's lines after some news, in a terminal of a size."""
    times = iter(moments)
    now = [0.0]

    def clock() -> float:
        now[0] = next(times, now[0])
        return now[0]

    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=output, width=width, markup=False, emoji=False, highlight=False)
    screen = Screen("http://service", clock)
    for each in news:
        screen.take(Document(each) if isinstance(each, dict) else each)
    options = console.options if height is None else console.options.update(height=height)
    rendered = console.render_lines(screen, options.update(width=width), pad=False)
    return ["".join(segment.text for segment in line).rstrip() for line in rendered]


def words(line: str) -> str:
    return " ".join(line.split())


def test_a_usual_terminal_shows_all_there_is_to_know() -> None:
    lines = lines_of(document())

    assert lines[0] == "penstock watch  http://service" + " " * 46 + "live"
    assert lines[1] == "default  ████████░░░░░░░░░░░░  6 of 15 in use (40%)  3 idle  2 waiting"
    assert lines[2] == "  12.0 checkouts/s  7 rejected  1 overflow"
    assert lines[3] == (
        "  p50/95/99  wait 0.12 ms/2.00 ms/3.00 ms  hold 4.00 ms/50.0 ms/1.20 s  in all"
    )
    assert lines[4].endswith("▆▆  4 min, 15 at most")
    assert lines[6:9] == [
        "FINDINGS (1)",
        "critical every-connection-out: All 15 connections were checked out for 30 s.",
        "    do: Set pool_size to 10.",
    ]
    assert words(lines[9]) == "ROUTES by hold time (10 of 30) checkouts in all mean longest"
    assert words(lines[10]) == "GET /things/0 1,000 10.0 s 10.0 ms 500 ms"
    assert lines[20].startswith("SLOW STATEMENTS (1)")
    assert words(lines[21]).endswith("… 4 250 ms 400 ms 120")
    assert words(lines[23]) == "pid 4711 60 min 6 15 3 2 1.00 ms"
    assert len(lines) == 24


@pytest.mark.parametrize("width", [1, 10, 40, 80, 200])
@pytest.mark.parametrize("height", [1, 3, 10, 24, 60])
@pytest.mark.parametrize("databases", [1, 5])
@pytest.mark.parametrize("is_lost", [True, False])
def test_it_fits_every_terminal(width: int, height: int, databases: int, is_lost: bool) -> None:
    long = [
        {"id": "x" * 300, "severity": "warning", "evidence": "long " * 100, "remedy": "大" * 100}
    ]
    many = [database(f"d{number} 大" * 20, findings=long) for number in range(databases)]
    lost = [Lost(WatchError("It is gone. " * 50), 4)] if is_lost else []

    lines = lines_of(document(*many), *lost, width=width, height=height)

    assert all(Text(line).cell_len <= width for line in lines)
    # Below a few lines the terminal's own border cuts.
    assert len(lines) <= max(height, 12)


def test_a_finding_is_whole_before_a_list_grows() -> None:
    lines = lines_of(document(), height=12)

    assert "    do: Set pool_size to 10." in lines
    assert len(lines) == 12


def test_grave_findings_come_first() -> None:
    findings = [
        {"id": name, "severity": name, "evidence": "Seen.", "remedy": "Act."}
        for name in ("info", "unheard-of", "critical", "warning")
    ]
    lines = lines_of(document(database(findings=findings)), height=None)

    shown = [line.partition(" ")[0] for line in lines if line.endswith("Seen.")]
    assert shown == ["critical", "warning", "info", "unheard-of"]


def test_several_databases_are_one_below_the_other() -> None:
    lines = lines_of(document(database("one"), database("two")), height=40)

    assert [line.split()[0] for line in lines if " in use (" in line] == ["one", "two"]
    assert len(lines) == 40


def test_databases_for_which_there_is_no_room_are_told_of() -> None:
    lines = lines_of(document(*(database(f"d{number}") for number in range(9))))

    assert lines[1] == "2 of 9 databases: --database NAME"


def test_without_a_height_nothing_is_left_out() -> None:
    lines = lines_of(document(), height=None)

    assert sum(line.startswith("GET /things/") for line in lines) == 30
    assert not any("of 30" in line for line in lines)


def test_the_newest_times_are_shown_where_the_service_tells_them() -> None:
    recent = {"seconds": 60.01, "wait": {"count": 0, "p50": 0}, "hold": {"count": 1, "p50": 0.5}}
    lines = lines_of(document(database(recent=recent)))

    assert lines[3] == "  p50/95/99  wait -  hold 500 ms/-/-  in 60 s"


def test_what_is_rare_is_shown_while_it_is() -> None:
    now = {
        "checked_out": 6,
        "limit": 0,
        "opening": 1,
        "idle_in_transaction": 2,
        "server_connections": 90,
        "server_limit": 100,
        "replica_lag_bytes": 5_000_000,
        "replica_lag_seconds": 1.5,
    }
    lines = lines_of(document(database(now=now)), width=120)

    assert lines[1] == "default  6 in use, without a limit  0 idle  0 waiting"
    assert lines[2] == (
        "  12.0 checkouts/s  7 rejected  1 opening  2 idle in transaction  server 90 of 100"
        "  replica lag 5.00 MB, 1.50 s"
    )


def test_a_lost_connection_is_told_with_the_age_of_what_is_shown() -> None:
    lost = Lost(WatchError("It is down."), 8)
    lines = lines_of(document(), lost, moments=(100.0, 105.0, 107.0))

    assert lines[0].endswith("  7 s old")
    assert lines[1] == "Trying again in 6 s. It is down."
    assert "6 of 15 in use" in lines[2]


def test_silence_makes_the_numbers_old_by_itself() -> None:
    assert lines_of(document(), moments=(100.0, 104.0))[0].endswith("  4 s old")


def test_a_new_document_ends_the_trouble() -> None:
    lines = lines_of(document(), Lost(WatchError("Gone."), 8), document())

    assert lines[0].endswith("  live")
    assert not any("Gone." in line for line in lines)


def test_further_documents_add_to_the_history_of_the_first() -> None:
    further = database(seconds=1)
    further["history"]["checked_out"] = [99]
    lines = lines_of(document(), document(further))

    assert lines[4].endswith("4 min, 99 at most")


def test_a_service_without_a_database_is_told_of() -> None:
    assert "access=" in lines_of({"databases": []})[1]


@pytest.mark.parametrize("hostile", ["\x1b[2J\x1b[Howned", "a\r\nb\x07", "[red]x[/red] :smile:"])
def test_hostile_text_is_only_shown(hostile: str) -> None:
    text = dict.fromkeys(("id", "severity", "evidence", "remedy", "route"), hostile)
    shown = database(
        hostile, routes=[text], statements=[{**text, "statement": hostile}], findings=[text]
    )

    lines = lines_of(document(shown), height=None)

    assert all(line.isprintable() for line in lines)
    if hostile.startswith("["):
        assert sum(hostile in line for line in lines) >= 5


@pytest.mark.parametrize("nonsense", [None, 1, "x", [1, None], {"a": []}])
def test_nonsense_is_no_traceback(nonsense: object) -> None:
    fields: dict[str, Any] = dict.fromkeys(database(), nonsense)

    assert lines_of({"databases": [fields, nonsense]}, height=None)[0].endswith("live")


def test_a_terminal_without_unicode_gets_ascii() -> None:
    lines = lines_of(document(database("x" * 100), database()), encoding="ascii", height=None)

    assert all(line.isascii() for line in lines[:8])
    assert any("########............  6 of 15" in line for line in lines)


def test_servers_are_listed_with_role_lag_and_share() -> None:
    servers = [
        {"name": "primary", "role": "primary", "lag": 0.0, "reads": 10, "share": 0.1},
        {"name": "db-2:5432", "role": "replica", "lag": 0.004, "reads": 90, "share": 0.9},
        {
            "name": "db-3:5432",
            "role": "unknown",
            "lag": None,
            "trouble": "it does not answer",
            "reads": 0,
            "share": 0.0,
        },
    ]
    one = {**database(), "cluster": {"pid": 1, "timeline": 1, "servers": servers}}
    lines = [words(line) for line in lines_of(document(one), height=None)]

    begin = lines.index("SERVERS (3) role lag reads share")
    assert lines[begin + 1 : begin + 4] == [
        "primary primary - 10 10%",
        "db-2:5432 replica 4.00 ms 90 90%",
        "db-3:5432: it does not answer unknown - 0 0%",
    ]


def test_without_a_cluster_no_servers_are_listed() -> None:
    one = {**database(), "cluster": None}

    assert not any("SERVERS" in line for line in lines_of(document(one), height=None))
