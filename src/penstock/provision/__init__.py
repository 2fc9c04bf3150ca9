"""Files of a deployment, made from the settings of its service."""

from penstock.provision.deployment import PARTS, Deployment
from penstock.provision.files import GeneratedFile, write_files
from penstock.provision.machine import Disk, Machine
from penstock.provision.pgbouncer import PgbouncerOptions, pgbouncer_files
from penstock.provision.postgresql import Parameter, fragment, parameters

__all__ = [
    "PARTS",
    "Deployment",
    "Disk",
    "GeneratedFile",
    "Machine",
    "Parameter",
    "PgbouncerOptions",
    "fragment",
    "parameters",
    "pgbouncer_files",
    "write_files",
]
