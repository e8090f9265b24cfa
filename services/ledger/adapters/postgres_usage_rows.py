"""How usage records are found: by way of the table that keeps ids, and holds, unique in all months."""

from services.ledger.adapters.postgres_rows import statement

RECORDS_OF_HOLDS = statement("""
    SELECT {usage} FROM ledger.usage_records WHERE tenant = %(tenant)s AND (occur_time, event_id) IN
        (SELECT occur_time, event_id FROM ledger.usage_ids WHERE tenant = %(tenant)s AND hold_id = ANY(%(holds)s))
""")
RECORDS_OF_EVENTS = statement("""
    SELECT {usage} FROM ledger.usage_records WHERE tenant = %(tenant)s AND (occur_time, event_id) IN
        (SELECT occur_time, event_id FROM ledger.usage_ids WHERE tenant = %(tenant)s AND event_id = ANY(%(ids)s))
""")
