"""The starter: a new service from a template, and the template's later versions merged into it."""

from penstock.starter.project import Choices, create, name_of, update

__all__ = ["Choices", "create", "name_of", "update"]
