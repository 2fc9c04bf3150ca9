"""What a database connection is configured with, checked before anything starts."""

from penstock.settings.environment import settings_from_environment
from penstock.settings.keywords import SettingsKeywords
from penstock.settings.model import DatabaseSettings
from penstock.settings.profiles import (
    BudgetPolicy,
    Environment,
    IsolationLevel,
    NestedCheckoutPolicy,
    SizePreset,
    TlsMode,
)
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
    "SettingsKeywords",
    "SizePreset",
    "TlsMode",
    "settings_from_environment",
]
