"""What a database connection is configured with, checked before anything starts."""

from penstock.settings.environment import settings_from_environment
from penstock.settings.keywords import SettingsKeywords
from penstock.settings.model import DatabaseSettings
from penstock.settings.profiles import (
    OVERFLOW_SHARE,
    PRESETS,
    PROFILES,
    PROXIES,
    RECYCLE_SHARE,
    SHARING,
    BudgetPolicy,
    Environment,
    IsolationLevel,
    NestedCheckoutPolicy,
    Proxy,
    SizePreset,
    TlsMode,
)
from penstock.settings.url import Driver
from penstock.settings.validation import Accepted, Real, Unit, Whole, WholeOrOff, refusal

__all__ = [
    "OVERFLOW_SHARE",
    "PRESETS",
    "PROFILES",
    "PROXIES",
    "RECYCLE_SHARE",
    "SHARING",
    "Accepted",
    "BudgetPolicy",
    "DatabaseSettings",
    "Driver",
    "Environment",
    "IsolationLevel",
    "NestedCheckoutPolicy",
    "Proxy",
    "Real",
    "SettingsKeywords",
    "SizePreset",
    "TlsMode",
    "Unit",
    "Whole",
    "WholeOrOff",
    "refusal",
    "settings_from_environment",
]
