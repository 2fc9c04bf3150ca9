"""One examination, as a test asks for it."""

from penstock import DatabaseSettings
from penstock.doctor import CHECKS, Examination, Result, chosen, doctor_settings, examine


async def examined(url: str, *only: str) -> Examination:
    """Return what the doctor finds at a URL, with these checks or all of a server's."""
    checks = [check for check in chosen(only, ()) if not check.query.of_pgbouncer]
    return await examine(doctor_settings(DatabaseSettings.of(url)), checks)


async def found(url: str, check: str) -> Result:
    """Return what one check finds."""
    assert check in CHECKS
    (result,) = (await examined(url, check)).results
    return result
