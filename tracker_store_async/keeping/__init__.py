"""Keeping data: prune, delete, anonymise, look after the layout and the storage.

Everything works on any store, holds a page of conversations at a time, and may be
stopped and run again: what is done already is not done twice. ::

    async for cut in prune(store, Retention(older_than_seconds=90 * 86400)):
        print(cut.sender_id, cut.events)
    rules = load_rules("rules.yml")
    async for change in anonymise(store, rules):
        ...
"""

from tracker_store_async.keeping.anonymising import Anonymised, anonymise
from tracker_store_async.keeping.deleting import delete_user
from tracker_store_async.keeping.pruning import Cut, Retention, prune
from tracker_store_async.keeping.rules import Rules, load_rules

__all__ = [
    "Anonymised",
    "Cut",
    "Retention",
    "Rules",
    "anonymise",
    "delete_user",
    "load_rules",
    "prune",
]
