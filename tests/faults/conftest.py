"""The storages of the conformance suite, for the tests of every backend here."""

from __future__ import annotations

from tests.conformance.conftest import storage_of as storage_of
