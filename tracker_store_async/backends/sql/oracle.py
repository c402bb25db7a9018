"""Oracle: the portable statements, compiled by SQLAlchemy for its dialect."""

from __future__ import annotations

from sqlalchemy import text

from tracker_store_async.backends.sql.core import CoreOperations

_VERSION = text("SELECT version FROM product_component_version WHERE rownum = 1")


class OracleOperations(CoreOperations):
    """Oracle with python-oracledb's asyncio mode."""

    async def server_version(self) -> str:
        """Ask the server for its version: one round trip."""
        async with self._reading() as conn:
            return str((await conn.execute(_VERSION)).scalar())
