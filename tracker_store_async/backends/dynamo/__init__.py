"""Conversations in DynamoDB: one item a save, and a head item for each conversation.

- `layout`: names, keys and attributes; creating the tables' layout.
- `client`: the connection, retries within a budget, the errors.
- `saves`: rows to items and back, whatever their size.
- `appending`, `reading`, `erasing`, `listing`, `lifetime`: the operations.
- `store`: the class with its options.
"""

from __future__ import annotations

from tracker_store_async.backends.dynamo.store import DynamoTrackerStore

__all__ = ["DynamoTrackerStore"]
