"""The alert rules as Prometheus evaluates them, on series made by hand, in their own durations."""

import json
import re
from pathlib import Path

import pytest
from tests.servers.prometheus import promtool

from penstock import exporters

RULES = Path(exporters.__file__).parent / "grafana" / "alerts.yml"
DOCS = Path(__file__).parents[3] / "docs"
NAMES = re.findall(r"^ +- alert: (\w+)$", RULES.read_text(encoding="utf-8"), re.MULTILINE)


USED, IDLE = (
    f'db_client_connection_count{{db_client_connection_state="{s}"}}' for s in ["used", "idle"]
)
WAIT = "db_client_connection_wait_time_seconds_bucket"
HEALTHY = {
    USED: "3x70",
    IDLE: "7x70",
    "db_client_connection_max": "10x70",
    "db_client_connection_pending_requests": "0x70",
    f'{WAIT}{{le="0.001024"}}': "0+60x70",
    f'{WAIT}{{le="0.524288"}}': "0+60x70",
    f'{WAIT}{{le="+Inf"}}': "0+60x70",
    "penstock_checkouts_rejected_total": "5x70",
    "penstock_connection_open_failures_total": "1x70",
    "penstock_connections_died_total": "0 1 1 2x70",
    "penstock_connections_short_lived_total": "0+1x70",
    "penstock_leaks_total": "2x70",
    "penstock_checkouts_nested_total": "2x70",
    "penstock_connections_idle_in_transaction": "0 0 1 0 0 1 0x70",
    "penstock_event_loop_late_seconds": "0.01 0.4 0.4 0.01x70",
    "penstock_worker_silence_seconds": "0.5x70",
    "penstock_workers": "2x70",
    "up": "1x70",
    "penstock_server_connections": "80x70",
    "penstock_server_connections_max": "100x70",
    "penstock_replica_lag_seconds": "2x70",
    "penstock_replica_up": "1 1 0 1x70",
    "penstock_replica_reads_total": "0+900x70",
    "penstock_replica_fallbacks_total": "0+90x70",
    "penstock_slow_statements_total": "0+30x70",
    'penstock_finding{id="slow-statements", severity="warning"}': "1x70",
}
"""A sample each minute; not without a fault, for some faults are usual."""

TROUBLE: dict[str, tuple[dict[str, str], int, set[str]]] = {
    "PenstockPoolExhausted": (
        {USED: "10x70", IDLE: "0x70", "db_client_connection_pending_requests": "4x70"},
        6,
        {"PenstockPoolNearlyExhausted"},
    ),
    "PenstockPoolNearlyExhausted": ({USED: "9x70", IDLE: "1x70"}, 6, set()),
    "PenstockCheckoutsSlow": (
        {f'{WAIT}{{le="0.524288"}}': "0+50x70", f'{WAIT}{{le="0.001024"}}': "0+40x70"},
        5,
        set(),
    ),
    "PenstockCheckoutsRejected": ({"penstock_checkouts_rejected_total": "5 5 6x70"}, 4, set()),
    "PenstockConnectionsCannotOpen": (
        {"penstock_connection_open_failures_total": "0 0 2x70"},
        4,
        set(),
    ),
    "PenstockConnectionsDie": ({"penstock_connections_died_total": "0 0 9x70"}, 5, set()),
    "PenstockConnectionsShortLived": (
        {"penstock_connections_short_lived_total": "0+90x70"},
        12,
        set(),
    ),
    "PenstockConnectionsLeak": ({"penstock_leaks_total": "2 2 3x70"}, 4, set()),
    "PenstockCheckoutsNested": ({"penstock_checkouts_nested_total": "2 2 3x70"}, 4, set()),
    "PenstockIdleInTransaction": ({"penstock_connections_idle_in_transaction": "1x70"}, 3, set()),
    "PenstockEventLoopBlocked": ({"penstock_event_loop_late_seconds": "0.4x70"}, 3, set()),
    "PenstockWorkerSilent": ({"penstock_worker_silence_seconds": "1+60x70"}, 2, set()),
    "PenstockWorkerDown": ({"penstock_workers": "2 2 1x70"}, 5, set()),
    "PenstockServiceDown": ({"penstock_workers": "2 2 stale", "up": "1 1 0x70"}, 5, set()),
    "PenstockServerNearlyFull": ({"penstock_server_connections": "95x70"}, 3, set()),
    "PenstockReplicaLags": ({"penstock_replica_lag_seconds": "40x70"}, 3, set()),
    "PenstockReplicaLeftOut": ({"penstock_replica_up": "1 1 0x70"}, 8, set()),
    "PenstockReadsOnPrimary": ({"penstock_replica_fallbacks_total": "0+1000x70"}, 12, set()),
    "PenstockStatementsSlow": ({"penstock_slow_statements_total": "0+90x70"}, 12, set()),
    "PenstockFinding": (
        {'penstock_finding{id="pool-exhausted", severity="critical"}': "1x70"},
        2,
        set(),
    ),
}
"""By the alert's name: what is different, when to look (minutes), what else fires rightly."""


def of_one_service(series: str) -> str:
    name, _, labels = series.rstrip("}").partition("{")
    pool = "" if name == "up" else ', db_client_connection_pool_name="default"'
    return f'{name}{{job="users", instance="one:8000"{pool}{labels and ", "}{labels}}}'


def check(directory: Path, series: dict[str, str], minute: int, firing: set[str]) -> None:
    """Let promtool evaluate the rules over the series, and compare what fires."""
    expected = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(firing)]
    test = {
        "interval": "1m",
        "input_series": [
            {"series": of_one_service(name), "values": values} for name, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{minute}m",
                "exp_samples": expected,
            }
        ],
    }
    document = {"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": [test]}
    file = directory / "test.yml"
    file.write_text(json.dumps(document))  # which is YAML, too
    promtool("test", "rules", file)


def test_promtool_accepts_the_rules() -> None:
    assert f"{len(NAMES)} rules found" in promtool("check", "rules", RULES)


@pytest.mark.parametrize("minute", [5, 20, 60])
def test_a_healthy_service_raises_no_alert(tmp_path: Path, minute: int) -> None:
    check(tmp_path, HEALTHY, minute, set())


@pytest.mark.parametrize("name", TROUBLE)
def test_an_alert_fires_on_what_it_is_for(tmp_path: Path, name: str) -> None:
    different, minute, others = TROUBLE[name]

    check(tmp_path, {**HEALTHY, **different}, minute, {name, *others})


def test_every_alert_has_its_trouble() -> None:
    assert list(TROUBLE) == NAMES


def test_every_alert_says_what_to_do() -> None:
    _, *rules = RULES.read_text(encoding="utf-8").split("- alert: ")

    for name, rule in zip(NAMES, rules, strict=True):
        assert re.search(r"severity: (critical|warning)\n", rule), name
        assert "summary: " in rule, name
        assert "description: " in rule, name
        page, _, anchor = re.findall(r"runbook_url: \"?docs/([^\n\"]+)", rule)[0].partition("#")
        assert anchor in {*anchors(page), "{{ $labels.id }}"}, name


def anchors(page: str) -> set[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return {each.lower() for each in re.findall(r"^##+ `?([\w-]+)`?$", text, re.MULTILINE)}


def test_every_alert_is_documented() -> None:
    page = (DOCS / "prometheus.md").read_text(encoding="utf-8")

    assert re.findall(r"^\| `(Penstock\w+)` \|", page, re.MULTILINE) == NAMES
