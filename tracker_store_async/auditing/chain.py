"""A hash chain: each record holds the hash of the one before it.

Whoever edits, removes or inserts a record breaks the chain behind it, unless they write
all of it anew; a secret key prevents that. What is cut off at the end leaves no gap:
only a head (number and hash of a record) that was kept elsewhere shows it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

FIRST_PREVIOUS = "0" * 64
MAX_PROBLEMS = 100


@dataclass(frozen=True, slots=True)
class Head:
    """The last record of a trail.

    Attributes:
        seq: Its number, from 1; 0 where there is none.
        hash: Its hash.
    """

    seq: int = 0
    hash: str = FIRST_PREVIOUS

    def __str__(self) -> str:
        """Return it as `parse_head` reads it."""
        return f"{self.seq}:{self.hash}"


def parse_head(text: str) -> Head:
    """Return the head that `str(head)` has written.

    Raises:
        ConfigurationError: It is none.
    """
    number, _, digest = text.strip().partition(":")
    is_hash = len(digest) == len(FIRST_PREVIOUS) and set(digest) <= set(
        "0123456789abcdef"
    )
    if not number.isdecimal() or not is_hash:
        raise ConfigurationError(
            "a head is NUMBER:HASH, as `tracker-store audit head` prints it"
        )
    return Head(int(number), digest)


class Chain:
    """Links records.

    Args:
        key: Secret for HMAC-SHA-256 in place of SHA-256; None for none.
    """

    def __init__(self, key: str | None = None) -> None:
        self._key = None if key is None else key.encode()

    def link(self, record: dict[str, Any], head: Head) -> tuple[dict[str, Any], Head]:
        """Return a record with its place in the chain, and the new head."""
        linked = {"seq": head.seq + 1, **record, "previous": head.hash}
        linked["hash"] = self.digest(linked)
        return linked, Head(linked["seq"], linked["hash"])

    def digest(self, record: dict[str, Any]) -> str:
        """Return the hash of a record, whatever hash it holds itself."""
        content = {name: value for name, value in record.items() if name != "hash"}
        data = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        if self._key is None:
            return hashlib.sha256(data).hexdigest()
        return hmac.new(self._key, data, hashlib.sha256).hexdigest()


def head_of(record: dict[str, Any] | None) -> Head:
    """Return the head that a last record is."""
    return Head() if record is None else Head(record["seq"], record["hash"])


@dataclass(slots=True)
class Verdict:
    """What a verification found.

    Attributes:
        records: Number of records.
        head: The last one.
        problems: One sentence each; empty if all is well.
    """

    records: int = 0
    head: Head = field(default_factory=Head)
    problems: list[str] = field(default_factory=list)

    @property
    def is_intact(self) -> bool:
        """Whether nothing was found."""
        return not self.problems


class Verification:
    """Looks at one record after the other; a trail may be longer than the memory.

    Args:
        chain: The chain, with its key.
        known: A head that was kept elsewhere: the trail must hold that record.
        after: The head that the first record follows, where what comes before it was
            put away; None for a trail that is there from its beginning.
    """

    def __init__(
        self, chain: Chain, known: Head | None = None, after: Head | None = None
    ) -> None:
        self._chain, self._known = chain, known
        self._saw_known = known is None or known.seq == 0
        self._verdict = Verdict(head=after or Head())

    def add(self, line: str | bytes) -> None:
        """Look at the JSON of the next record."""
        verdict = self._verdict
        verdict.records += 1
        if len(verdict.problems) < MAX_PROBLEMS:
            _check(line, self._chain, verdict)
        if self._known is not None and verdict.head == self._known:
            self._saw_known = True

    def end(self) -> Verdict:
        """Return whether the records were whole and as they were written."""
        if not self._saw_known and self._known is not None:
            self._verdict.problems.append(
                f"record {self._known.seq}, whose hash was kept, is not there: the "
                "trail was cut off before it or written anew"
            )
        return self._verdict


def verify(
    lines: Iterable[str | bytes],
    chain: Chain,
    known: Head | None = None,
    after: Head | None = None,
) -> Verdict:
    """Return whether records are whole and as they were written.

    Args:
        lines: The JSON of each record, in order.
        chain: The chain, with its key.
        known: See `Verification`.
        after: See `Verification`.
    """
    verification = Verification(chain, known, after)
    for line in lines:
        verification.add(line)
    return verification.end()


def _check(line: str | bytes, chain: Chain, verdict: Verdict) -> None:
    """Compare one record with its own hash and with the one before it."""
    before = verdict.head
    try:
        record = json.loads(line)
        seq, previous, digest = int(record["seq"]), record["previous"], record["hash"]
        # Whatever else the line says to other readers, such as a name given twice.
        is_as_written = _text_of(line) == dumped(record)
        own = chain.digest(record)
    except (ValueError, KeyError, TypeError, RecursionError):
        verdict.problems.append(f"what follows record {before.seq} is no record")
        return
    is_own = isinstance(digest, str) and hmac.compare_digest(
        own.encode(), digest.encode(errors="replace")
    )
    if not is_as_written or not is_own:
        verdict.problems.append(f"record {seq} was edited, or hashed with another key")
    if seq != before.seq + 1:
        verdict.problems.append(
            f"record {seq} follows record {before.seq}: records were removed, added or "
            "reordered"
        )
    elif previous != before.hash:
        verdict.problems.append(
            f"record {seq} does not continue record {before.seq}: one of them was "
            "replaced"
        )
    verdict.head = Head(seq, str(digest))


def dumped(record: dict[str, Any]) -> str:
    """Return the line of a linked record."""
    return json.dumps(record, separators=(",", ":"))


def _text_of(line: str | bytes) -> str:
    text = line.decode() if isinstance(line, bytes) else line
    return text.rstrip("\r\n")
