"""What a database connection is configured with, checked before anything starts."""

from penstock.settings.environment import settings_from_environment
from penstock.settings.keywords import SettingsKeywords
from penstock.settings.model import DatabaseSettings
from penstock.settings.profiles import (
    OVERFLOW_SHARE,
    PRESETS,
    PROFILES,
    BudgetPolicy,
    Environment,
    IsolationLevel,
    NestedCheckoutPolicy,
    SizePreset,
    TlsMode,
)
from penstock.settings.proxies import PROXIES, RECYCLE_SHARE, PoolMode, Proxy, least_patient
from penstock.settings.url import Driver
from penstock.settings.validation import Accepted, Proxies, Real, Unit, Whole, WholeOrOff, refusal

__all__ = [
    "OVERFLOW_SHARE",
    "PRESETS",
    "PROFILES",
    "PROXIES",
    "RECYCLE_SHARE",
    "Accepted",
    "BudgetPolicy",
    "DatabaseSettings",
    "Driver",
    "Environment",
    "IsolationLevel",
    "NestedCheckoutPolicy",
    "PoolMode",
    "Proxies",
    "Proxy",
    "Real",
    "SettingsKeywords",
    "SizePreset",
    "TlsMode",
    "Unit",
    "Whole",
    "WholeOrOff",
    "least_patient",
    "refusal",
    "settings_from_environment",
]
