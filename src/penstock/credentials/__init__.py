"""Credentials that rotate: what brings them, and until when they are used."""

from penstock.credentials.azure import EntraCredentials
from penstock.credentials.file import FileCredentials
from penstock.credentials.provider import (
    Credentials,
    CredentialsProvider,
    Server,
    ServerCredentials,
)
from penstock.credentials.rds import RdsCredentials

file_credentials, rds_credentials = FileCredentials, RdsCredentials
entra_credentials = EntraCredentials

__all__ = [
    "Credentials",
    "CredentialsProvider",
    "Server",
    "ServerCredentials",
    "entra_credentials",
    "file_credentials",
    "rds_credentials",
]
