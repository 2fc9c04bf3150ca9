"""What a database connection is configured with, checked before anything starts."""

from penstock.settings.environment import settings_from_environment
from penstock.settings.model import DatabaseSettings
from penstock.settings.policies import (
    BudgetPolicy,
    IsolationLevel,
    NestedCheckoutPolicy,
    TlsMode,
)
from penstock.settings.profiles import Environment, SizePreset
from penstock.settings.proxies import Proxy
from penstock.settings.url import Driver

__all__ = [
    "BudgetPolicy",
    "DatabaseSettings",
    "Driver",
    "Environment",
    "IsolationLevel",
    "NestedCheckoutPolicy",
    "Proxy",
    "SizePreset",
    "TlsMode",
    "settings_from_environment",
]
