"""Which audit trail a command line means, and whether it is intact."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from typing import TYPE_CHECKING

from tracker_store_async.auditing.chain import (
    Chain,
    Verdict,
    Verification,
    parse_head,
)
from tracker_store_async.auditing.sinks import FileSink, read_file
from tracker_store_async.auditing.sql import SQLSink
from tracker_store_async.errors import ConfigurationError
from tracker_store_async.inspection.targets import find_section
from tracker_store_async.wrapping import make_sink, take_wrapping

if TYPE_CHECKING:
    from pathlib import Path

    from tracker_store_async.auditing.sinks import Sink

KEY_VARIABLE = "TRACKER_STORE_AUDIT_KEY"


def find_trail(file: Path | None, endpoints: Path | None) -> Sink:
    """Return the sink of a trail.

    Args:
        file: A file of records.
        endpoints: An endpoints file whose store has the key `audit`.

    Raises:
        ConfigurationError: None is named, or what is named has no trail to read.
    """
    if file is not None:
        if endpoints is not None:
            raise ConfigurationError("give only one of --file and --endpoints")
        return FileSink(str(file), Chain(os.environ.get(KEY_VARIABLE) or None))
    settings = find_section(endpoints, "--file FILE or ").config.as_dict()
    wrapping = take_wrapping(settings, (), where="tracker_store", strict=True)
    if wrapping.audit is None:
        raise ConfigurationError("this store has no audit trail: it has no key `audit`")
    if wrapping.audit.sink == "logger":
        raise ConfigurationError(
            "the audit trail goes to a logger: write the messages of one chain to a "
            "file, and verify that with --file"
        )
    return make_sink(wrapping.audit)


def verify_trail(
    sink: Sink, head: str | None = None, after: str | None = None
) -> Verdict:
    """Return whether a trail is intact.

    Args:
        sink: Its sink.
        head: A head that was kept elsewhere, or None.
        after: The head that its first record follows, or None.

    Raises:
        ConfigurationError: The head is none, or the trail cannot be read.
    """
    known = None if head is None else parse_head(head)
    before = None if after is None else parse_head(after)
    verification = Verification(sink.chain, known, before)
    if isinstance(sink, FileSink):
        for line in read_file(sink.path):
            verification.add(line)
    elif isinstance(sink, SQLSink):
        asyncio.run(_add_rows(sink, verification))
    else:
        raise ConfigurationError("only a file or a database can be verified")
    return verification.end()


async def _add_rows(sink: SQLSink, verification: Verification) -> None:
    await sink.open()
    try:
        async with aclosing(sink.read()) as rows:
            async for row in rows:
                verification.add(row)
    finally:
        await sink.close()
