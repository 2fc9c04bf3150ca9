"""Diagnosis by rule: what a reading says is wrong, why, and what to do."""

from penstock.telemetry.rules.rule import Rule
from penstock.telemetry.rules.rulebook import RULES, find

__all__ = ["RULES", "Rule", "find"]
