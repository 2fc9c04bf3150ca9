"""The root of every error that Penstock raises, and the one that settings raise."""


class PenstockError(Exception):
    """Base of every error that Penstock raises on its own account."""


class SettingsError(PenstockError, ValueError):
    """A setting was missing, malformed or out of range; nothing was started.

    The message has one line for each wrong setting: its name, the value that was refused
    (never a secret one), and what is accepted.
    """
