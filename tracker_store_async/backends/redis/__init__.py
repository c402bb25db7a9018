"""Conversations in Redis or Valkey: one server, a cluster, or behind sentinels.

- `store.py`: the class `RedisTrackerStore`;
- `keys.py`: the names of the keys, and why they lie in one slot;
- `scripts.py`: what the server runs, one script for each operation;
- `client.py`: connecting, and sending one command whole;
- `index.py`: which conversations there are;
- `errors.py`: what redis-py raises, and what we raise for it.
"""

from __future__ import annotations

from tracker_store_async.backends.redis.store import RedisTrackerStore

__all__ = ["RedisTrackerStore"]
