"""The files of a deployment, part by part."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from importlib.resources import files
from math import ceil
from pathlib import Path

from sqlalchemy import make_url

from penstock.base_error import SettingsError
from penstock.budget import ServerLimits
from penstock.provision.files import GeneratedFile
from penstock.provision.machine import MIB, Machine
from penstock.provision.pgbouncer import PgbouncerOptions, pgbouncer_files
from penstock.provision.postgresql import fragment, parameters
from penstock.provision.template import filled
from penstock.settings import DatabaseSettings

BLUE, GREEN = 8000, 8001
RESERVED = 3
"""PostgreSQL's ``superuser_reserved_connections`` by default."""
GRACEFUL = 30
"""Seconds for requests to end when the service stops, at least."""
DRAIN = 10
"""Seconds for which ``Database.close`` waits by default."""
PRE_STOP = 5
"""Seconds for load balancers to notice that a pod ends."""
MARGIN = 5
_RESERVED = "and none that is there already"
LEAST_SHARE = 2
"""Connections of a worker below which another pod does not pay."""
WORKER_MEMORY = 192
"""MiB that a worker may use."""
# No longer than systemd wants an account; nginx has blue.conf, green.conf and active.conf.
_LABEL = re.compile(r"(?!(?:root|postgres|blue|green|active)$)[a-z]([a-z0-9-]{0,29}[a-z0-9])?")
# Those of PostgreSQL, of the compose file and of CloudNativePG are there before.
_ROLE = re.compile(
    r"(?!pg_|(?:postgres|public|none|replicator|streaming_replica)$)[a-z_][a-z0-9_]{0,62}"
)
_DATABASE = re.compile(r"(?!(?:postgres|template[01])$)[a-z_][a-z0-9_]{0,62}")
_DOTTED = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_APPLICATION = re.compile(f"{_DOTTED}:{_DOTTED}", re.ASCII)
_PLACE = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:{_PLACE}(?::\d+)?/)?{_PLACE}(?:/{_PLACE})*(?::\w[\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?",
    re.ASCII,
)
_DOMAIN = re.compile(r"(?:\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What is deployed, and where.

    Args:
        settings: Of the service; ``application_name`` is what all is called by.
        machine: What there is for PostgreSQL.
        application: Where the service is, as uvicorn has it.
        image: Of its container; None for its name.
        domain: By which it is reached.
        max_connections: PostgreSQL's; None for what suits the machine.
        pgbouncer: Options of a PgBouncer on the service's own machine.
        userlist: Text of an earlier ``userlist.txt`` for containers.
    """

    settings: DatabaseSettings
    machine: Machine
    application: str = "app.main:app"
    image: str | None = None
    domain: str = "service.example"
    max_connections: int | None = None
    pgbouncer: PgbouncerOptions = PgbouncerOptions()  # noqa: RUF009 - frozen
    userlist: str = ""

    def files(self, only: Collection[str] = ()) -> tuple[GeneratedFile, ...]:
        """Make the files.

        Args:
            only: Names of :data:`PARTS`; none for all.

        Raises:
            SettingsError: A setting cannot be met, or a part has no such name.
        """
        for name in only:
            if name not in PARTS:
                raise SettingsError(f"only={name!r}: one of {', '.join(PARTS)} is accepted")
        return tuple(
            replace(file, name=f"{part}/{file.name}")
            for part, make in PARTS.items()
            if not only or part in only
            for file in make(self)
        )

    @property
    def name(self) -> str:
        """What all is called by."""
        return self.settings.application_name

    @property
    def limits(self) -> ServerLimits:
        """What PostgreSQL accepts."""
        found = parameters(self.machine, self.max_connections)
        return ServerLimits(int(found[0].value), RESERVED)

    @property
    def graceful(self) -> int:
        """Seconds for requests to end: as long as one may wait for a connection, or more."""
        return max(GRACEFUL, ceil(self.settings.pool_timeout))

    @property
    def most_pods(self) -> int:
        """Pods among which the fleet's budget can be divided.

        Raises:
            SettingsError: It is not enough for one.
        """
        settings = self.settings
        budget = int(self.limits.allowed(settings.connection_reserve) * (1 - settings.fleet_surge))
        found = budget // (LEAST_SHARE * settings.workers)
        if not found:
            raise SettingsError(
                f"workers={settings.workers}: a pod's need {LEAST_SHARE} connections each, and of "
                f"max_connections={self.limits.max_connections} there are {budget}"
            )
        return found

    def values(self) -> dict[str, object]:
        """Return what the templates are filled in with.

        Raises:
            SettingsError: A name cannot stand in them.
        """
        settings = self.settings
        url = make_url(settings.url.get_secret_value())
        if url.get_backend_name() != "postgresql":
            raise SettingsError("url: a deployment is of PostgreSQL, and it names another database")
        names = {
            "application_name": (self.name, _LABEL, f"1 to 31 of a-z, 0-9 and -, {_RESERVED},"),
            "url: its user": (url.username or "", _ROLE, f"a-z, 0-9 and _, {_RESERVED},"),
            "url: its database": (url.database or "", _DATABASE, f"a-z, 0-9 and _, {_RESERVED},"),
            "application": (self.application, _APPLICATION, "package.module:name"),
            "image": (self.image or self.name, _IMAGE, "the name of an image"),
            "domain": (self.domain, _DOMAIN, "the name of a host"),
        }
        for what, (text, pattern, accepted) in names.items():
            if not pattern.fullmatch(text):
                raise SettingsError(f"{what}={text!r}: {accepted} is accepted in these files")
        return {
            "name": self.name,
            "variable": self.name.replace("-", "_"),
            "application": self.application,
            "image": self.image or f"{self.name}:latest",
            "domain": self.domain,
            "user": url.username,
            "database": url.database,
            "workers": settings.workers,
            "instances": settings.instances,
            "pool_size": settings.pool_size,
            "max_overflow": settings.max_overflow,
            "pool_timeout": f"{settings.pool_timeout:g}",
            "command_timeout": f"{settings.command_timeout:g}",
            "read_timeout": ceil(settings.pool_timeout + settings.command_timeout) + MARGIN,
            "graceful": self.graceful,
            "drain": DRAIN,
            "pre_stop": PRE_STOP,
            "stop": self.graceful + DRAIN + MARGIN,
            "pod_stop": PRE_STOP + self.graceful + DRAIN + MARGIN,
            "blue": BLUE,
            "green": GREEN,
            "memory": 64 + WORKER_MEMORY * settings.workers,
            "machine_cores": self.machine.cores,
            "machine_memory": self.machine.memory // MIB,
            "cluster_parameters": "\n".join(
                f'      {each.name}: "{each.value}"'
                for each in parameters(self.machine, self.max_connections)
            ),
        }


def _postgresql(deployment: Deployment) -> tuple[GeneratedFile, ...]:
    text = fragment(deployment.machine, deployment.max_connections)
    return (GeneratedFile("tuning.conf", text),)


def _pgbouncer(deployment: Deployment) -> tuple[GeneratedFile, ...]:
    options = replace(
        deployment.pgbouncer, server=deployment.limits, cores=deployment.machine.cores
    )
    return pgbouncer_files(deployment.settings, options)


def _systemd(deployment: Deployment) -> tuple[GeneratedFile, ...]:
    values = deployment.values()
    return (GeneratedFile(f"{deployment.name}@.service", filled("service.service", values)),)


def _nginx(deployment: Deployment) -> tuple[GeneratedFile, ...]:
    values = deployment.values()
    return (
        GeneratedFile(f"{deployment.name}.conf", filled("nginx.conf", values)),
        *(
            GeneratedFile(f"{colour}.conf", filled("colour.conf", {"colour_port": port}))
            for colour, port in (("blue", BLUE), ("green", GREEN))
        ),
    )


def _compose(deployment: Deployment) -> tuple[GeneratedFile, ...]:
    values = deployment.values()
    tls = dict.fromkeys(("tls", "tls_ca_file", "tls_cert_file", "tls_key_file"))
    pooled = deployment.settings.model_copy(update={"instances": 2, **tls})
    options = PgbouncerOptions(
        server=deployment.limits,
        cores=deployment.machine.cores,
        address="primary:5432",
        listen="*",
        directory=Path("/run/secrets"),
        userlist=deployment.userlist,
    )
    made = {file.name: file for file in pgbouncer_files(pooled, options)}
    targets = ", ".join(f'"service-{number}:8000"' for number in (1, 2))
    token = "/run/secrets/operator_token"  # noqa: S105 - where it is
    return (
        *(
            GeneratedFile(name, filled(name, values))
            for name in ("compose.yaml", "Containerfile", "Containerfile.pgbouncer")
        ),
        *(GeneratedFile(name, filled(name, values), 0o755) for name in ("initdb.sh", "replica.sh")),
        GeneratedFile("postgresql.conf", fragment(deployment.machine, deployment.max_connections)),
        # A container's user is another than the file's: the directory is what keeps it.
        replace(made["userlist.txt"], name="secrets/userlist.txt", mode=0o644),
        replace(made["pgbouncer.ini"], name="pgbouncer/pgbouncer.ini", mode=0o644),
        replace(made["service.env"], name="pgbouncer/service.env"),
        *_watching(deployment, targets, token),
        GeneratedFile("grafana/datasource.yml", filled("datasource.yml", {})),
        GeneratedFile("grafana/dashboards.yml", filled("dashboards.yml", {})),
        GeneratedFile("grafana/penstock.json", _shipped("penstock.json")),
    )


def _watching(deployment: Deployment, targets: str, token: str) -> tuple[GeneratedFile, ...]:
    values = {"name": deployment.name, "targets": targets, "token_file": token}
    return (
        GeneratedFile("prometheus.yml", filled("prometheus.yml", values)),
        GeneratedFile("alerts.yml", _shipped("alerts.yml")),
    )


def _prometheus(deployment: Deployment) -> tuple[GeneratedFile, ...]:
    deployment.values()
    targets = ", ".join(f'"127.0.0.1:{port}"' for port in (BLUE, GREEN))
    return (
        *_watching(deployment, targets, "/etc/prometheus/operator-token"),
        GeneratedFile("penstock.json", _shipped("penstock.json")),
    )


def _kubernetes(deployment: Deployment) -> tuple[GeneratedFile, ...]:
    most, settings = deployment.most_pods, deployment.settings
    values = {
        **deployment.values(),
        "min_pods": min(max(2, settings.instances), most),
        "max_pods": most,
        "budget_reason": (
            f"So that each of {settings.workers} worker(s) a pod has {LEAST_SHARE} of the "
            f"{deployment.limits.max_connections} connections, less the reserve."
        ),
    }
    text = filled("kubernetes.yaml", values)
    return (GeneratedFile(f"{deployment.name}.yaml", text),)


def _cloudnativepg(deployment: Deployment) -> tuple[GeneratedFile, ...]:
    return (GeneratedFile("cluster.yaml", filled("cluster.yaml", deployment.values())),)


def _shipped(name: str) -> str:
    return files("penstock.exporters").joinpath("grafana", name).read_text("utf-8")


PARTS: dict[str, Callable[[Deployment], tuple[GeneratedFile, ...]]] = {
    "postgresql": _postgresql,
    "pgbouncer": _pgbouncer,
    "systemd": _systemd,
    "nginx": _nginx,
    "compose": _compose,
    "kubernetes": _kubernetes,
    "cloudnativepg": _cloudnativepg,
    "prometheus": _prometheus,
}
