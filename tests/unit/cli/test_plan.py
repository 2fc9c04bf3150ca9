"""``penstock plan`` as it is typed."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.live_service import AT, LiveService, database, serving

from penstock.cli.main import main
from penstock.planner import PlanInputs, input_default, plan, read_inputs

Run = Callable[..., tuple[int, str, str]]
ASKED = ("--rate", "800", "--query-time", "4ms", "--workers", "2")


@pytest.fixture
def penstock(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``penstock plan``; returns its exit status, its output and its errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["penstock", "plan", *arguments])
        monkeypatch.setenv("COLUMNS", "120")
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capsys.readouterr()

    return run


def test_json_is_the_plan(penstock: Run) -> None:
    status, output, errors = penstock(*ASKED, "--query-p99", "0.02s", "--memory", "8GB", "--json")

    made = plan(
        {"rate": 800, "query_time": 0.004, "query_p99": 0.02, "workers": 2, "memory": 2**33}
    )
    assert (status, errors) == (0, "")
    assert json.loads(output) == json.loads(json.dumps(made.document()))


def test_the_table_has_what_to_set_and_what_to_expect(penstock: Run) -> None:
    status, output, _ = penstock(*ASKED)

    made = plan({"rate": 800, "query_time": 0.004, "workers": 2})
    assert status == 0
    assert re.search(rf"DATABASE_POOL_SIZE +{made.pool_size}\b", output)
    assert re.search(rf"max_connections +{made.max_connections}\b", output)
    assert f"{made.predicted.queue.waiting_probability:.2%}" in output
    assert "1,600" in output


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (ASKED, 0),
        ((*ASKED, "--pool-size", "60", "--max-overflow", "20"), 0),
        ((*ASKED, "--pool-timeout", "30s", "--request-timeout", "20s"), 1),
        ((*ASKED, "--pool-size", "1", "--max-overflow", "0"), 2),
        ((*ASKED, "--cores", "1"), 2),
        (("--rate", "fast", "--query-time", "4ms"), 3),
        (("--rate", "5"), 3),
        (("--query-time", "4ms"), 3),
        (("/nowhere/plan.json",), 3),
        ((*ASKED, "--html", "/nowhere/plan.html"), 3),
        ((*ASKED, "--save", "/nowhere/plan.json"), 3),
        ((*ASKED, "--from", "http://127.0.0.1:1"), 3),
    ],
)
def test_the_exit_status_tells_of_what_was_found(
    penstock: Run, arguments: tuple[str, ...], status: int
) -> None:
    found, output, errors = penstock(*arguments)

    assert found == status
    assert bool(errors) is (status == 3)
    assert bool(output) is (status != 3)


def test_an_error_names_option_value_and_range(penstock: Run) -> None:
    _, _, errors = penstock("--rate", "0", "--query-time", "4", "--max-connections", "9999999")

    lines = errors.splitlines()
    assert [line.removeprefix("penstock: ").partition("=")[0] for line in lines] == [
        "--rate",
        "--query-time",
        "--max-connections",
    ]
    assert all("accepted" in line for line in lines)
    assert "262143" in lines[2]


@pytest.mark.parametrize(
    ("option", "typed"), [("--query-time", "0ms"), ("--work-mem", "1kB"), ("--wait", "2h")]
)
def test_an_error_shows_what_was_typed(penstock: Run, option: str, typed: str) -> None:
    _, _, errors = penstock(*ASKED, option, typed)

    assert f"{option}={typed!r}" in errors


def test_a_default_is_shown_as_it_is_typed() -> None:
    needed = {"rate": "1", "query_time": "1ms"}
    shown = {
        name: default
        for name in PlanInputs.model_fields
        if (default := input_default(name)) is not None
    }

    assert (shown["wait"], shown["proxy"], shown["code_time"]) == ("10ms", "none", "0s")
    assert PlanInputs.of({**needed, **shown}).model_dump() == PlanInputs.of(needed).model_dump()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('{"rate": 3, "query_tme": 4}', ["query_tme", "query_time"]),
        ('{"rate": -3, "query_time": "4ms"}', [": rate=-3"]),
        ('{"rate": 3,\n "query_time": 4ms}', ["line 2"]),
    ],
)
def test_a_file_that_is_wrong_is_named_with_what_is_wrong_in_it(
    penstock: Run, tmp_path: Path, written: str, said: list[str]
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(written)
    status, _, errors = penstock(str(path))

    assert status == 3
    assert str(path) in errors
    assert all(each in errors for each in said)


def test_a_plan_is_not_saved_under_another_ending(penstock: Run, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    status, _, errors = penstock(*ASKED, "--save", str(path))

    assert status == 3
    assert ".toml" in errors
    assert not path.exists()


def test_no_number_of_a_plan_has_an_exponent(penstock: Run, tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    for asked in (
        ("--rate", "1000000", "--query-time", "1h"),
        ("--rate", "5000", "--query-time", "20ms", "--workers", "4", "--instances", "4"),
        ("--rate", "0.0167", "--query-time", "1ms"),
    ):
        _, output, _ = penstock(*asked, "--html", str(page))
        body = page.read_text(encoding="utf-8").partition("</style>")[2]

        assert not re.search(r"\de[+-]\d", output + body)


def test_every_input_is_an_option_with_its_description(penstock: Run) -> None:
    status, output, _ = penstock("--help")
    said = " ".join(re.sub("[│╭╮╰╯─]", " ", output).split())

    assert status == 0
    for name, field in PlanInputs.model_fields.items():
        assert f"--{name.replace('_', '-')} " in said
        assert field.description is not None
        assert field.description.split()[0] in said


def test_a_plan_that_was_saved_is_planned_again_with_other_numbers(
    penstock: Run, tmp_path: Path
) -> None:
    kept = tmp_path / "plan.toml"

    penstock(*ASKED, "--pool-size", "7", "--save", str(kept))
    status, output, _ = penstock(str(kept), "--rate", "1200", "--json")

    assert status == 0
    assert read_inputs(kept)["rate"] == 800
    made = json.loads(output)
    assert made["inputs"]["rate"] == 1200
    assert made["settings"]["pool_size"] == 7


def test_a_saved_plan_is_asked_backwards(penstock: Run, tmp_path: Path) -> None:
    kept = tmp_path / "plan.json"

    penstock(*ASKED, "--save", str(kept))
    status, output, _ = penstock(str(kept), "--p99", "30ms", "--json")

    assert status == 0
    assert json.loads(output)["predicted"]["response_p99"] <= 0.03


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "onclick"}]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_what_is_simulated_stands_beside_what_is_expected(
    penstock: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("penstock.cli.plan.SIMULATED", 2000)
    page = tmp_path / "plan.html"

    _, written, _ = penstock(*ASKED, "--simulate", "--json")
    _, output, _ = penstock(*ASKED, "--simulate", "--html", str(page))

    made = plan({"rate": 800, "query_time": 0.004, "workers": 2})
    found = made.simulated(2000)
    assert json.loads(written) == json.loads(
        json.dumps(made.document() | {"simulated": found.document()})
    )
    for text in (output, page.read_text(encoding="utf-8")):
        assert f"{made.predicted.queue.waiting_probability:.2%}" in text
        assert f"{found.wait_probability:.2%}" in text
        assert f"{found.wait.p99 * 1000:.3g} ms" in text


def test_the_page_is_whole_and_loads_nothing(penstock: Run, tmp_path: Path) -> None:
    path = tmp_path / "plan.html"

    penstock(*ASKED, "--cores", "1", "--html", str(path))
    page, text = Page(), path.read_text(encoding="utf-8")
    page.feed(text)

    assert page.open == []
    assert {"svg", "polyline", "table"} <= page.tags
    assert not {"script", "link", "img", "iframe"} & page.tags
    assert page.links == []
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text
    assert "database-cores" in text


@pytest.mark.parametrize("pool_size", ["1", "3", "1000"])
def test_every_point_of_a_chart_is_within_it(penstock: Run, tmp_path: Path, pool_size: str) -> None:
    path = tmp_path / "plan.html"

    penstock(*ASKED, "--pool-size", pool_size, "--max-overflow", "0", "--html", str(path))

    text = path.read_text(encoding="utf-8")
    width, height = map(int, re.findall(r'viewBox="0 0 (\d+) (\d+)"', text)[0])
    points = [
        tuple(map(float, point.split(",")))
        for line in re.findall(r'points="([^"]*)"', text)
        for point in line.split()
    ]
    assert points
    assert all(0 <= x <= width and 0 <= y <= height for x, y in points)


@contextmanager
def telling(*databases: dict[str, Any]) -> Iterator[LiveService]:
    """A service whose live document has these databases."""
    state = json.dumps({"at": AT, "databases": databases})
    with serving(LiveService(states=[state])) as service:
        yield service


def measured(**fields: Any) -> dict[str, Any]:
    """A database of a live document, whose server is known."""
    found = database()
    return {**found, "now": {**found["now"], "server_limit": 80}, **fields}


def test_a_running_service_tells_what_it_measures(penstock: Run) -> None:
    recent = {"seconds": 60.0, "hold": {"count": 7000, "mean": 0.01, "p99": 0.04}}
    with telling(measured(recent=recent)) as service:
        status, output, _ = penstock("--from", service.url, "--instances", "3", "--json")

    made = json.loads(output)
    assert status == 0
    assert made["inputs"] == {
        "rate": 36.0,
        "query_time": 0.01,
        "query_p99": 0.04,
        "sample": 7000,
        "workers": 1,
        "instances": 3,
        "max_connections": 80,
    }


def test_what_is_typed_has_priority_over_what_is_measured(penstock: Run) -> None:
    with telling(measured()) as service:
        _, output, _ = penstock("--from", service.url, "--rate", "900", "--workers", "4", "--json")

    inputs = json.loads(output)["inputs"]
    assert (inputs["rate"], inputs["workers"], inputs["query_time"]) == (900, 4, 0.002)
    # A percentile of 600 times the mean is more than the distribution can have.
    assert inputs["query_p99"] == pytest.approx(0.02995, rel=1e-3)


def test_a_nearly_idle_service_is_a_warning(penstock: Run) -> None:
    recent = {"seconds": 60.0, "hold": {"count": 1, "mean": 0.01, "p99": 0.01}}
    with telling(measured(recent=recent)) as service:
        status, output, _ = penstock("--from", service.url, "--json")
        _, typed, _ = penstock("--from", service.url, "--query-time", "10ms", "--json")

    found = json.loads(output)["findings"]
    assert (status, [each["id"] for each in found]) == (1, ["plan-sample"])
    assert json.loads(typed)["findings"] == []


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        (("--p99", "40ms"), "p99"),
        (("--query-time", "900ms"), "query_p99"),
        (("--query-time", "1ms", "--query-p99", "2ms"), "p99"),
    ],
)
def test_what_is_typed_replaces_what_it_does_not_go_with(
    penstock: Run, arguments: tuple[str, ...], gone: str
) -> None:
    recent = {"seconds": 60.0, "hold": {"count": 7000, "mean": 0.01, "p99": 0.03}}
    with telling(measured(recent=recent)) as service:
        status, output, errors = penstock("--from", service.url, *arguments, "--json")

    assert (status, errors) == (0, "")
    assert gone not in json.loads(output)["inputs"]


@pytest.mark.parametrize(
    ("databases", "said"),
    [
        ([], "--database default"),
        ([database("a"), database("b")], "--database default"),
        ([measured(history={"checkouts": [0, 0]})], "load"),
        ([{"name": "default"}], "load"),
    ],
)
def test_a_service_that_tells_too_little_is_an_error(
    penstock: Run, databases: list[dict[str, Any]], said: str
) -> None:
    with telling(*databases) as service:
        status, _, errors = penstock("--from", service.url)

    assert status == 3
    assert said in errors
