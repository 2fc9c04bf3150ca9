"""The files of a deployment, as the programs that read them see them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from tests.servers.parts import require_part

from penstock import DatabaseSettings
from penstock.errors import SettingsError
from penstock.provision import PARTS, Deployment, Machine, write_files

COMPOSE = Path(__file__).parents[3] / ".cache/compose/docker-compose"
WORKERS = 4


def deployment(domain: str = "shop.example", **settings: Any) -> Deployment:
    return Deployment(
        settings=DatabaseSettings.of(
            **{
                "url": "postgresql://app:hunter2@10.0.0.5/app",
                "environment": "production",
                "application_name": "shop",
                "workers": WORKERS,
                "instances": 3,
                **settings,
            },
        ),
        machine=Machine.of("16GB", 4),
        domain=domain,
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where everything was generated."""
    found = tmp_path_factory.mktemp("deploy")
    write_files(deployment().files(), found)
    return found


def run(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a checker; gives all that it says as its output."""
    return subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def program(name: str, package: str) -> str:
    found = shutil.which(name, path="/usr/bin:/usr/sbin:/bin:/sbin")
    require_part(name, present=found, remedy=f"apt-get install {package}")
    return str(found)


def test_every_part_has_files_and_none_has_the_password(directory: Path) -> None:
    assert {path.name for path in directory.iterdir()} == set(PARTS)
    for path in directory.rglob("*"):
        assert path.is_dir() or "hunter2" not in path.read_text()
    assert (directory / "compose/secrets").stat().st_mode & 0o077 == 0


def test_names_that_yaml_has_another_meaning_for_are_texts() -> None:
    named = deployment(application_name="on", url="postgresql://yes:x@10.0.0.5/null")
    found = {file.name: file.text for file in named.files()}

    for each in yaml.safe_load_all(found["kubernetes/on.yaml"]):
        kubernetes_validate.validate(each, "1.34", strict=True)
    cluster = yaml.safe_load(found["cloudnativepg/cluster.yaml"])
    assert cluster["spec"]["bootstrap"]["initdb"] == {"database": "null", "owner": "yes"}
    assert yaml.safe_load(found["compose/compose.yaml"])["name"] == "on"
    prometheus = yaml.safe_load(found["prometheus/prometheus.yml"])
    assert prometheus["scrape_configs"][0]["job_name"] == "on"


NAMES = {
    "application_name": ["root", "postgres", "blue", "green", "active", "a" * 32, "x-", "Shop"],
    "user": ["postgres", "public", "none", "replicator", "streaming_replica", "pg_app", "a-b", ""],
    "database": ["postgres", "template0", "template1", "a-b", ""],
    "application": ["app", "a..b:c", "a.:b", "a:b.", "a:b()", "--help:x", "a:b\n"],
    "image": ["Shop", "x:", "x/", "x//y", "x@", "x:1:2", "-x", "x@sha256:1", "a b"],
    "domain": ["*", "*x.y", "a b", "a;b", ""],
}


@pytest.mark.parametrize("what", NAMES)
def test_a_name_that_one_of_the_programs_refuses_is_refused(what: str) -> None:
    for name in NAMES[what]:
        given: dict[str, Any] = {
            "user": "app",
            "database": "app",
            "application_name": "shop",
            what: name,
        }
        url = f"postgresql://{given.pop('user')}:x@db/{given.pop('database')}"
        named = deployment(url=url, application_name=given.pop("application_name"))

        with pytest.raises(SettingsError, match=what.removesuffix("_name")):
            replace(named, **given).files(["systemd"])


def test_an_image_may_have_a_registry_a_tag_and_a_digest() -> None:
    for image in ["shop", "localhost:5000/a/shop:v1.0-RC1", f"a.b/c_d@sha256:{'a' * 64}"]:
        compose = replace(deployment(), image=image).files(["compose"])[0].text
        assert yaml.safe_load(compose)["services"]["service-1"]["image"] == image


def test_nginx_accepts_blue_and_green(directory: Path, tmp_path: Path) -> None:
    nginx = program("nginx", "nginx-light")
    name = "s" * 31
    files = deployment(application_name=name, domain="*.shop.example").files(["nginx"])
    text = files[0].text.replace(f"/etc/nginx/{name}", str(tmp_path))
    (tmp_path / "shop.conf").write_text(text)
    main = tmp_path / "nginx.conf"
    main.write_text(f"pid {tmp_path}/pid; events {{}} http {{ include {tmp_path}/shop.conf; }}")
    for colour in ("blue", "green"):
        shutil.copy(directory / f"nginx/{colour}.conf", tmp_path / "active.conf")
        done = run([nginx, "-t", "-p", tmp_path, "-e", "stderr", "-c", main])

        assert done.returncode == 0, done.stdout


def test_promtool_accepts_the_configurations_and_the_alerts(
    directory: Path, tmp_path: Path
) -> None:
    promtool = program("promtool", "prometheus")
    (tmp_path / "token").touch()
    for part in ("compose", "prometheus"):
        place = tmp_path / part
        shutil.copytree(directory / part, place)
        text = yaml.safe_load((place / "prometheus.yml").read_text())
        text["scrape_configs"][0]["authorization"]["credentials_file"] = str(tmp_path / "token")
        (place / "prometheus.yml").write_text(yaml.safe_dump(text))
        done = run([promtool, "check", "config", place / "prometheus.yml"])

        assert done.returncode == 0, done.stdout
        assert "rules found" in done.stdout
        found = next(place.rglob("penstock.json"))
        assert json.loads(found.read_text())["uid"]


def test_systemd_accepts_the_unit_and_finds_it_hardened(directory: Path, tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    unit = tmp_path / "shop@8000.service"
    text = (directory / "systemd/shop@.service").read_text()
    unit.write_text(text.replace("/opt/shop/venv/bin/uvicorn", sys.executable))

    done = run([analyze, "verify", unit])
    security = run([analyze, "security", "--offline=true", "--threshold=20", unit])

    assert (done.stdout, done.returncode) == ("", 0)
    assert security.returncode == 0, security.stdout[-300:]


def test_compose_accepts_its_file(directory: Path) -> None:
    require_part("compose", present=COMPOSE.exists(), remedy="tests/servers/fetch_compose.sh")
    done = run([COMPOSE, "--file", directory / "compose/compose.yaml", "config", "--format=json"])
    assert done.returncode == 0, done.stdout
    services = json.loads(done.stdout)["services"]

    named = {"primary", "replica", "pgbouncer", "migrate", "service-1", "service-2"}
    assert set(services) == named | {"prometheus", "grafana"}
    environment = services["service-1"]["environment"]
    assert environment["DATABASE_PROXY"] == "pgbouncer"
    assert environment["DATABASE_MAX_OVERFLOW"] == "0"
    assert environment["DATABASE_URL"] == "postgresql://app@pgbouncer:6432/app"
    assert "DATABASE_PROXY" not in services["migrate"]["environment"]
    for service in services.values():
        for volume in service.get("volumes", []):
            if volume["type"] == "bind":
                assert Path(volume["source"]).is_file(), volume
        for build in filter(None, [service.get("build")]):
            assert (Path(build["context"]) / build["dockerfile"]).resolve().is_file()


@pytest.mark.parametrize("version", ["1.30", "1.34", kubernetes_validate.latest_version()])
def test_kubernetes_schema_accepts_the_manifests(directory: Path, version: str) -> None:
    manifests = list(yaml.safe_load_all((directory / "kubernetes/shop.yaml").read_text()))

    for each in manifests:
        kubernetes_validate.validate(each, version[:4], strict=True)
    assert len(manifests) == 8


def test_a_wrong_manifest_is_not_accepted(directory: Path) -> None:
    manifests = yaml.safe_load_all((directory / "kubernetes/shop.yaml").read_text())
    wrong = next(each for each in manifests if each["kind"] == "Deployment")
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.34", strict=True)


def test_a_pod_ends_after_its_pool_and_pods_stay_within_the_budget(directory: Path) -> None:
    text = (directory / "kubernetes/shop.yaml").read_text()
    found = {each["kind"]: each for each in yaml.safe_load_all(text)}
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    uvicorn = (directory / "compose/Containerfile").read_text()

    sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert '"--timeout-graceful-shutdown", "30"' in uvicorn
    assert pod["terminationGracePeriodSeconds"] == sleep + 30 + 10 + 5
    most = found["HorizontalPodAutoscaler"]["spec"]["maxReplicas"]
    # 200 - 3 connections, a quarter in reserve, 3 % for those that join, two for each worker
    assert most == int(int(197 * 0.75) * 0.97) // (2 * WORKERS) == 17
    probes = {name: container[name]["httpGet"]["path"] for name in container if "Probe" in name}
    assert probes == {
        "startupProbe": "/health/live",
        "livenessProbe": "/health/live",
        "readinessProbe": "/health/ready",
    }
    assert found["Secret"]["stringData"] == {"OPERATOR_TOKEN": "REPLACE-ME"}


def test_a_budget_that_is_not_enough_for_one_pod_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"^workers=72: .* there are 142$"):
        deployment(workers=72).files(["kubernetes"])
    text = deployment(workers=71).files(["kubernetes"])[0].text
    assert "minReplicas: 1\n" in text
    assert "maxReplicas: 1\n" in text
    assert deployment(workers=72).files(["systemd"])


def test_the_cluster_has_the_machines_settings_and_the_services_names(directory: Path) -> None:
    cluster = yaml.safe_load((directory / "cloudnativepg/cluster.yaml").read_text())
    text = (directory / "kubernetes/shop.yaml").read_text()

    jsonschema.validate(cluster, CLUSTER)
    assert cluster["spec"]["postgresql"]["parameters"]["shared_buffers"] == "4GB"
    name = cluster["metadata"]["name"]
    assert f"@{name}-rw:5432/app" in text
    assert f"secretName: {name}-app" in text


TEXT, NUMBER = {"type": "string"}, {"type": "integer"}


def _closed(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


# Of the operator's own schema, the part that is used: another field's name is refused.
CLUSTER = _closed(
    apiVersion={"const": "postgresql.cnpg.io/v1"},
    kind={"const": "Cluster"},
    metadata=_closed(name=TEXT),
    spec=_closed(
        instances=NUMBER,
        imageName=TEXT,
        bootstrap=_closed(initdb=_closed(database=TEXT, owner=TEXT)),
        postgresql=_closed(
            parameters={"type": "object", "additionalProperties": TEXT},
            synchronous=_closed(
                method={"enum": ["any", "first"]},
                number=NUMBER,
                dataDurability={"enum": ["required", "preferred"]},
            ),
        ),
        resources=_closed(requests=_closed(cpu=TEXT, memory=TEXT), limits=_closed(memory=TEXT)),
        storage=_closed(size=TEXT),
        affinity=_closed(podAntiAffinityType={"enum": ["required", "preferred"]}),
    ),
)
