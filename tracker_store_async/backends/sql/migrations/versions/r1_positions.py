"""Rasa's `events` with a position and an id for each event, or that table anew."""

from tracker_store_async.backends.sql.migrations import target
from tracker_store_async.backends.sql.upgrade import steps_of

revision = "1"
down_revision = "0"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Number what Rasa stored, and make the row of each conversation."""
    found = target()
    if found.is_written:
        found.create(found.tables.events)
    else:
        found.run(steps_of(found.context.dialect.name))
