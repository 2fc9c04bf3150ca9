import json
import re
from collections.abc import Iterator
from datetime import date
from itertools import count
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import SettingsError
from penstock.load import Request, Target, read_targets, scenario_of


def requests(target: Target) -> Iterator[Request]:
    kind, random = target.kind(), Random(1)
    return (kind.make(random) for _ in count())


def first(target: Target) -> Request:
    return next(requests(target))


@pytest.mark.parametrize(
    ("text", "request_line", "body", "weight"),
    [
        ("GET /", "GET /", None, 1),
        ("GET /users/{1..10000}=8", "GET /users/{1..10000}", None, 8),
        ("GET /users/ =0.5", "GET /users/", None, 0.5),
        ("DELETE  /a", "DELETE  /a", None, 1),
        ("GET /a?x=1&y=2=3", "GET /a?x=1&y=2", None, 3),
        ("GET /a?x=b", "GET /a?x=b", None, 1),
        ("GET /a=1e3", "GET /a", None, 1000),
        ("GET /a=.5", "GET /a", None, 0.5),
        ("GET /v=a1", "GET /v=a1", None, 1),
        ("GET /a?x", "GET /a?x", None, 1),
        ('POST /u {"a": 1}=2', "POST /u", '{"a": 1}', 2),
        ('POST /u {"a": "b=2"}', "POST /u", '{"a": "b=2"}', 1),
        ("POST /u [1, 2] = 4", "POST /u", "[1, 2]", 4),
        ('POST /u?x=1 {"a": 1}=2', "POST /u?x=1", '{"a": 1}', 2),
    ],
)
def test_a_line_is_a_request_a_body_and_a_weight(
    text: str, request_line: str, body: str | None, weight: float
) -> None:
    target = Target.parse(text)

    assert (target.request, target.body, target.weight) == (request_line, body, weight)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "METHOD /path"),
        ("/users", "METHOD /path"),
        ("GET users", "METHOD /path"),
        ("get /users", "METHOD /path"),
        ("GET /users?limit=20", "'limit'"),
        ("GET /users?a=1&limit=20", "'limit'"),
        ("GET /users=0", "weight 0; above 0"),
        ("GET /users=-1", "weight -1; above 0"),
        ("GET /users=-0.5", "weight -0.5; above 0"),
        ("GET /users=nan", "weight nan; above 0"),
        ("GET /users=NaN", "weight NaN; above 0"),
        ("GET /users=inf", "weight inf; above 0"),
        ("GET /users=1e999", "weight 1e999; above 0"),
        ("GET /users=1,5", "weight 1,5; above 0"),
        ("GET /users = -1", "weight -1; above 0"),
        ('POST /users {"a": 1}=-1', "weight -1; above 0"),
        ("GET /users?limit=-1", "'limit'"),
    ],
)
def test_a_line_that_is_none_or_can_be_two_is_refused(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=f"--target '{re.escape(text)}'.*{said}"):
        Target.parse(text)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"request": "GET /{id}"}, r"\{id\}: is no placeholder"),
        ({"request": "GET /{9..1}"}, "9 is above 1"),
        ({"request": "GET /{1..}"}, "is no placeholder"),
        ({"request": "GET /users/{1.."}, r"'\{1\.\.', from character 8 on, is no complete"),
        ({"request": "GET /users/1..9}"}, "'}', from character 12 on"),
        ({"request": "GET /{1..9}/{uuid"}, r"'\{uuid', from character 9 on"),
        ({"request": "GET /{}"}, r"'\{}', from character 2 on"),
        ({"request": "GET /{{1..9}}"}, r"'\{\{1\.\.9}}', from character 2 on"),
        ({"request": "POST /", "body": '{"a": "{1.."}'}, "from character 8 on"),
        ({"request": "POST /", "body": {"a": "{csv:a.csv:b"}}, "from character 8 on"),
        ({"request": "GET /a\x7f"}, "METHOD /path"),
        ({"request": "GET /a\ud800"}, "METHOD /path"),
        ({"request": "GET"}, "METHOD /path"),
        ({"request": "GET /{csv:nowhere.csv:a}"}, "'nowhere.csv' cannot be read"),
        ({"request": "POST /", "body": "{a}"}, r"\{a\}: is no placeholder"),
        ({"request": "POST /", "body": '{"a": {uuid}}'}, "not JSON"),
        ({"request": "POST /", "body": {"a": date(2020, 1, 1)}}, "not JSON"),
        ({"request": "POST /", "body": '{"a": "{uid}"}'}, r"\{uid\}: is no placeholder"),
    ],
)
def test_a_target_that_cannot_be_used_is_refused(target: dict[str, Any], said: str) -> None:
    with pytest.raises(
        SettingsError, match=f"target {re.escape(repr(target['request']))}: .*{said}"
    ):
        Target(**target).kind()


def test_a_path_is_percent_encoded_where_it_is_not_ascii(tmp_path: Path) -> None:
    file = tmp_path / "größe.csv"
    file.write_text("ü\n/ é\n", encoding="utf-8")

    made = Target.parse(f"GET /é/%C3%A9/{{csv:{file}:ü}}?q=日本&a='b'")

    assert first(made).path == "/%C3%A9/%C3%A9/%2F%20%C3%A9?q=%E6%97%A5%E6%9C%AC&a='b'"
    assert first(Target(request="GET /", body='{"é": "a { b"}')).body == '{"é": "a { b"}'


@pytest.mark.parametrize(
    ("request_line", "label"),
    [
        ("GET /a?token=TOP", "GET /a?token=***"),
        ("GET /a?x=1&api_key=TOP&y=2", "GET /a?x=1&api_key=***&y=2"),
        ("GET /a?X-Amz-Signature=TOP", "GET /a?X-Amz-Signature=***"),
        ("GET /a?sig=TOP=", "GET /a?sig=***"),
        ("GET /a?accessToken=TOP{seq}", "GET /a?accessToken=***"),
        ("GET /a?Password=TOP&secret=TOP", "GET /a?Password=***&secret=***"),
        ("GET /a?auth=TOP&authorization=TOP", "GET /a?auth=***&authorization=***"),
        ("GET /a?token={uuid}&key={seq}", "GET /a?token={uuid}&key={seq}"),
        ("GET /token=a?keyword=b&author=c&design=d", "GET /token=a?keyword=b&author=c&design=d"),
    ],
)
def test_a_secret_in_a_query_is_sent_and_not_shown(request_line: str, label: str) -> None:
    target = Target(request=request_line)

    assert (target.label, target.kind().name) == (label, label)
    assert target.has_secret is ("TOP" in request_line)
    assert first(target).path.count("TOP") == request_line.count("TOP")
    with pytest.raises(SettingsError) as refused:
        Target.parse(f"{request_line}&limit=5")
    assert "TOP" not in str(refused.value)


def test_placeholders_are_filled_anew_each_time() -> None:
    made = requests(Target.parse('POST /{3..5}/{uuid}/{seq} {"n": {-2..-1}, "s": "{seq}-{uuid}"}'))
    parts = [next(made) for _ in range(200)]

    numbers, uuids, sequence = zip(*(each.path[1:].split("/") for each in parts), strict=True)
    bodies = [json.loads(each.body or "") for each in parts]
    assert set(numbers) == {"3", "4", "5"}
    assert len({UUID(each) for each in uuids}) == 200
    assert sequence == tuple(str(number) for number in range(1, 201))
    assert {body["n"] for body in bodies} == {-2, -1}
    assert [body["s"].partition("-")[0] for body in bodies] == list(sequence)


@settings(max_examples=40)
@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip))
def test_a_value_of_a_csv_file_arrives_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, value: str
) -> None:
    file = tmp_path_factory.mktemp("csv") / "names.csv"
    quoted = value.replace('"', '""')
    file.write_text(f'id,name\r\n1,"{quoted}"\r\n', encoding="utf-8", newline="")
    made = first(
        Target(request=f"POST /{{csv:{file}:name}}", body={"name": f"{{csv:{file}:name}}"})
    )

    assert unquote(made.path[1:]) == value
    assert re.fullmatch(r"/[!-~]*", made.path)
    assert json.loads(made.body or "") == {"name": value}


def test_a_csv_file_without_the_column_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    file.write_text("id,hidden\n1,a\n")

    with pytest.raises(SettingsError, match="rows: 1, columns: 2") as refused:
        Target(request=f"GET /{{csv:{file}:email}}").kind()
    assert "hidden" not in str(refused.value)


TOML = """
[[target]]
request = "GET /users/{1..10}"
weight = 8

[[target]]
name = "create"
request = "POST /users/"
body = { email = "{uuid}@example.com" }
"""
JSON = """{"target": [
    {"request": "GET /users/{1..10}", "weight": 8},
    {"name": "create", "request": "POST /users/", "body": {"email": "{uuid}@example.com"}}
]}"""


@pytest.mark.parametrize(("suffix", "text"), [("toml", TOML), ("json", JSON)])
def test_a_scenario_file_has_targets(tmp_path: Path, suffix: str, text: str) -> None:
    file = tmp_path / f"scenario.{suffix}"
    file.write_text(text)

    read, create = read_targets(file)
    scenario = scenario_of([read, create])

    assert [(kind.name, kind.weight) for kind in scenario.kinds] == [
        ("GET /users/{1..10}", 8),
        ("create", 1),
    ]
    assert json.loads(first(create).body or "")["email"].endswith("@example.com")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "target: Field required"),
        ("target = []", "target: "),
        ("[[target]]\nrequest = 'GET /'\nshare = 2", r"target\.0\.share: "),
        ("[[target]]\nrequest = 'GET /'\nweight = 0", r"target\.0\.weight: .*greater than 0"),
        ("[[target]]\nrequest = 'GET /'\nweight = inf", r"target\.0\.weight: "),
        ("[[target", ""),
    ],
)
def test_a_scenario_file_with_something_else_is_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(text)

    with pytest.raises(SettingsError, match=rf"--scenario {file}: {said}"):
        read_targets(file)


def test_a_scenario_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"--scenario nowhere\.toml: "):
        read_targets(Path("nowhere.toml"))
