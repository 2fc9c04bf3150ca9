"""Diagnosis by rules: what is wrong according to a reading, and what to do about it."""

from penstock.telemetry.rules.rulebook import RULES, Rule, find

__all__ = ["RULES", "Rule", "find"]
