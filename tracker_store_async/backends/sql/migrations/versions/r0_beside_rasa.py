"""The tables that Rasa has not.

Where a database commits each change of a table by itself, this says that the upgrade of
Rasa's table has begun.
"""

from tracker_store_async.backends.sql.migrations import target
from tracker_store_async.backends.sql.upgrade.common import create_other_tables

revision = "0"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create them."""
    found = target()
    if found.is_written:
        found.create(found.tables.conversations)
    else:
        found.run([create_other_tables])
