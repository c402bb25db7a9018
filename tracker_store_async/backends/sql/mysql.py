"""MySQL and MariaDB: three round trips to append (UPDATE, INSERT, COMMIT), two to read.

A transaction begins by itself and each ends with one word; nothing else is sent.
"""

from __future__ import annotations

from tracker_store_async.backends.sql.core import CoreOperations


class MysqlOperations(CoreOperations):
    """MySQL and MariaDB with any asyncio driver that SQLAlchemy knows.

    The portable statements are theirs too. What differs is elsewhere: types and
    collation in `schema`, isolation and reset of connections in `engine`.
    """
