r"""Rules of anonymising, read from a YAML file. ::

secret: {env: HASH_SECRET}          # or {file: /run/secrets/hash}; for `hash`
rules:
  - slots: [email, phone]           # names, or "*"
    action: mask
    keep_left: 2
  - entities: [person]
    action: hash
  - text: user                      # user, bot or all
    pattern: '\d{16}'              # only what matches; else the whole text
    action: replace
    with: "[card]"
  - metadata: [ip]                  # keys at any depth, or "*"
    action: replace
  - user_id: true
    action: hash
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tracker_store_async.errors import ConfigurationError, InvalidSenderIdError
from tracker_store_async.keeping.values import Hash, Mask, Replace
from tracker_store_async.serialization import check_sender_id

Target = Literal["slots", "entities", "text", "metadata", "user_id"]

TARGETS = ("slots", "entities", "text", "metadata", "user_id")
SPEAKERS = ("user", "bot", "all")
MIN_SECRET_BYTES = 16

_OPTIONS = {
    "mask": {"keep_left", "keep_right", "mark"},
    "hash": set[str](),
    "replace": {"with"},
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        target: What it is about.
        names: Slots, entities or keys of metadata; `*` is all of them. Of `text`: who
            said it.
        change: What becomes of a value.
        pattern: What of a text it is about, or None for all of it.
        everywhere: Whether a value that it changes is changed wherever else its text
            stands in the conversation, too.
    """

    target: Target
    names: frozenset[str]
    change: Mask | Hash | Replace
    pattern: re.Pattern[str] | None = field(default=None, repr=False)
    everywhere: bool = True

    def is_about(self, name: object) -> bool:
        """Whether a name is meant."""
        return "*" in self.names or name in self.names


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules, in order: a value that several are about is changed by the first."""

    rules: tuple[Rule, ...]

    def of(self, target: Target) -> list[Rule]:
        """Return the rules about one kind of thing."""
        return [rule for rule in self.rules if rule.target == target]


def load_rules(path: str | Path) -> Rules:
    """Read rules from a YAML file.

    Raises:
        ConfigurationError: The file cannot be read or is not one of rules; the text
            says where.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        found = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the rules cannot be read: {error}") from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" (line {mark.line + 1})"
        raise ConfigurationError(f"{str(path)!r} is not YAML{where}") from None
    return rules_from(found)


def rules_from(found: Any) -> Rules:
    """Return the rules that the content of a file stands for.

    Args:
        found: The content, as lists, dicts and texts.

    Raises:
        ConfigurationError: It is not one of rules; the text says where.
    """
    if not isinstance(found, dict) or not isinstance(found.get("rules"), list):
        raise ConfigurationError("a file of rules has a list under `rules`")
    unknown = found.keys() - {"rules", "secret"}
    if unknown:
        raise ConfigurationError(f"a file of rules has no key {min(unknown)!r}")
    if not found["rules"]:
        raise ConfigurationError("there is no rule under `rules`")
    secret = _secret(found["secret"]) if "secret" in found else None
    rules = [_rule(each, n, secret) for n, each in enumerate(found["rules"], 1)]
    return Rules(tuple(rules))


def _secret(found: Any) -> bytes:
    if not isinstance(found, dict) or found.keys() not in ({"env"}, {"file"}):
        raise ConfigurationError(
            "`secret` says where it is: {env: NAME} or {file: PATH}, never the secret"
        )
    [(kind, name)] = found.items()
    if kind == "env":
        if not os.environ.get(str(name)):
            raise ConfigurationError(
                f"the environment variable {name!r} is not set: it has to hold the "
                "`secret` of the rules"
            )
        content = os.environ[str(name)].encode(errors="surrogateescape")
    else:
        try:
            content = Path(str(name)).read_bytes().strip()
        except OSError as error:
            raise ConfigurationError(f"the secret cannot be read: {error}") from error
    if len(content) < MIN_SECRET_BYTES:
        raise ConfigurationError(
            f"the secret in {kind} {name!r} must have {MIN_SECRET_BYTES} bytes or more"
        )
    return content


def _rule(found: Any, number: int, secret: bytes | None) -> Rule:
    where = f"rule {number}"
    if not isinstance(found, dict):
        raise ConfigurationError(f"{where} is no mapping")
    targets = [name for name in TARGETS if name in found]
    if len(targets) != 1:
        raise ConfigurationError(f"{where} must name one of {', '.join(TARGETS)}")
    [target] = targets
    action = found.get("action")
    if action not in _OPTIONS:
        raise ConfigurationError(f"{where}: action is mask, hash or replace")
    allowed = _OPTIONS[action] | {target, "action"}
    allowed |= {"pattern"} if target == "text" else set()
    allowed |= {"everywhere"} if target != "user_id" else set()
    unknown = found.keys() - allowed
    if unknown:
        raise ConfigurationError(f"{where} cannot have {min(map(str, unknown))!r}")
    everywhere = found.get("everywhere", True)
    if not isinstance(everywhere, bool):
        raise ConfigurationError(f"{where}: everywhere is true or false")
    change = _change(action, found, where, secret)
    if target == "user_id":
        _check_user_id(change, where)
    return Rule(
        target,  # type: ignore[arg-type]
        _names(target, found[target], where),
        change,
        _pattern(found.get("pattern"), where),
        everywhere,
    )


def _check_user_id(change: Mask | Hash | Replace, where: str) -> None:
    """Refuse what no conversation could be saved with any more."""
    text = getattr(change, "text", getattr(change, "mark", "hmac"))
    try:
        check_sender_id(text)
    except InvalidSenderIdError as error:
        what = str(error).replace("sender id", "user id")
        raise ConfigurationError(f"{where}: {what}") from None


def _names(target: str, value: Any, where: str) -> frozenset[str]:
    if target == "text":
        if value not in SPEAKERS:
            raise ConfigurationError(f"{where}: text is user, bot or all")
        return frozenset({"user", "bot"} if value == "all" else {value})
    if target == "user_id":
        if value is not True:
            raise ConfigurationError(f"{where}: user_id is true")
        return frozenset("*")
    names = [value] if isinstance(value, str) else value
    is_list = isinstance(names, list) and all(isinstance(n, str) for n in names)
    if not is_list or not names:
        raise ConfigurationError(f"{where}: {target} is a list of names, or '*'")
    return frozenset(names)


def _change(
    action: str, found: dict[str, Any], where: str, secret: bytes | None
) -> Mask | Hash | Replace:
    if action == "hash":
        if secret is None:
            raise ConfigurationError(
                f"{where}: hash needs a `secret` at the top of the file"
            )
        return Hash(secret)
    if action == "replace":
        text = found.get("with", "[removed]")
        if not isinstance(text, str):
            raise ConfigurationError(f"{where}: with is a text")
        return Replace(text)
    sizes = [found.get(name, 0) for name in ("keep_left", "keep_right")]
    if any(type(size) is not int or size < 0 for size in sizes):
        raise ConfigurationError(f"{where}: keep_left and keep_right are 0 or more")
    mark = found.get("mark", "*")
    if not isinstance(mark, str) or len(mark) != 1:
        raise ConfigurationError(f"{where}: mark is one character")
    return Mask(sizes[0], sizes[1], mark)


def _pattern(value: Any, where: str) -> re.Pattern[str] | None:
    if value is None:
        return None
    try:
        return re.compile(value)
    except (re.error, TypeError) as error:
        raise ConfigurationError(f"{where}: pattern is no pattern: {error}") from None
