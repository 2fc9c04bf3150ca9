"""Files of a deployment, made from the settings of its service."""

from penstock.provision.files import GeneratedFile, write_files
from penstock.provision.pgbouncer import PgbouncerOptions, pgbouncer_files

__all__ = ["GeneratedFile", "PgbouncerOptions", "pgbouncer_files", "write_files"]
