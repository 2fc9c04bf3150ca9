"""The lists of functions and keywords hold on the server that is there."""

from collections.abc import Mapping
from pathlib import Path

from tests.integration.drivers.session import Session
from tests.servers.postgres import PostgresServer

from penstock.drivers.sql_text import HARMLESS, KEYWORDS, SYNTAX

CALLABLE = Path(__file__).with_name("callable_functions.sql").read_text()
CALLS = Path(__file__).with_name("calls.sql").read_text()
NEWEST = 180_000

STATEFUL: Mapping[str, str] = {
    "they set what the session remembers": "set_config setseed",
    "their locks are the session's": """
        pg_advisory_lock pg_advisory_lock_shared pg_advisory_unlock pg_advisory_unlock_all
        pg_advisory_unlock_shared pg_try_advisory_lock pg_try_advisory_lock_shared""",
    "they run a text, a cursor or whatever is behind a name": """
        cursor_to_xml cursor_to_xmlschema database_to_xml database_to_xml_and_xmlschema
        database_to_xmlschema pg_input_error_info pg_input_is_valid query_to_xml
        query_to_xml_and_xmlschema query_to_xmlschema schema_to_xml schema_to_xml_and_xmlschema
        schema_to_xmlschema table_to_xml table_to_xml_and_xmlschema table_to_xmlschema ts_rewrite
        ts_stat""",
    "a slot may be temporary, and decoding loads a library": """
        pg_copy_logical_replication_slot pg_copy_physical_replication_slot
        pg_create_logical_replication_slot pg_create_physical_replication_slot
        pg_logical_slot_get_binary_changes pg_logical_slot_get_changes
        pg_logical_slot_peek_binary_changes pg_logical_slot_peek_changes
        pg_replication_slot_advance pg_sync_replication_slots""",
    "the session has an origin from then on": """
        pg_replication_origin_session_reset pg_replication_origin_session_setup
        pg_replication_origin_xact_reset pg_replication_origin_xact_setup""",
    "a backup is the session's": "pg_backup_start pg_backup_stop",
    "they load a library": """
        fmgr_c_validator fmgr_internal_validator fmgr_sql_validator plpgsql_validator""",
}
OLDER = """
    interval_accum interval_accum_inv interval_avg interval_combine pg_read_file_old
    pg_rotate_logfile_old pg_stat_get_bgwriter_buf_written_checkpoints
    pg_stat_get_bgwriter_requested_checkpoints pg_stat_get_bgwriter_timed_checkpoints
    pg_stat_get_buf_fsync_backend pg_stat_get_buf_written_backend
    pg_stat_get_checkpoint_sync_time pg_stat_get_checkpoint_write_time pg_timezone_abbrevs
"""
"""Functions that the newest version has no more."""


def stateful() -> frozenset[str]:
    return frozenset(name for names in STATEFUL.values() for name in names.split())


def test_every_function_of_the_server_is_harmless_or_said_not_to_be(
    postgres: PostgresServer,
) -> None:
    functions = {str(name) for (name,) in postgres.execute(CALLABLE)}
    upgrading = {name for name in functions if name.startswith("binary_upgrade_")}

    assert functions - upgrading - HARMLESS == stateful() & functions
    assert not HARMLESS & (stateful() | upgrading)


def test_every_harmless_function_is_one_of_the_servers(postgres: PostgresServer) -> None:
    functions = {str(name) for (name,) in postgres.execute(CALLABLE)}
    [(version,)] = postgres.execute("SELECT current_setting('server_version_num')::int")

    unknown = HARMLESS - functions

    if isinstance(version, int) and NEWEST <= version < NEWEST + 10_000:
        assert unknown <= set(OLDER.split())


def test_every_keyword_of_the_server_is_known(postgres: PostgresServer) -> None:
    keywords = postgres.execute("SELECT word, catcode IN ('R', 'C') FROM pg_get_keywords()")

    assert {word for word, _ in keywords} <= KEYWORDS
    assert {word for word, is_no_name in keywords if is_no_name} <= SYNTAX


def test_a_call_of_a_harmless_function_leaves_nothing(
    postgres: PostgresServer, database_url: str
) -> None:
    session = Session(database_url)
    calls = postgres.execute(CALLS)
    done = 0

    for name, call in calls:
        if name in HARMLESS:
            assert session.changes(str(call)) == set(), call
            done += session.error is None
    session.close()

    assert done > 1_500
