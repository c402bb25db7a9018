"""The README and the pages beside it: what they show works, what they name exists."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.unit.command import output_of
from tracker_store_async import AvailableEndpoints, create_tracker_store, errors
from tracker_store_async.registry import STORES
from tracker_store_async.settings import Section, StoreConfig
from tracker_store_async.wrapping import (
    AuditConfig,
    CacheConfig,
    EncryptionConfig,
    FailSafeConfig,
    RetryConfig,
)

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
PAGES = ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    """Return the code blocks of the README in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


PYTHON = blocks("python")
YAMLS = blocks("yaml")

PRINTED = [
    "4 events, people = 4\n",
    "Hello\n",
    "",
    "alice 0 action\nalice 1 user\n",
]
"""What each block of Python prints."""


def test_the_readme_has_the_blocks_that_are_tested() -> None:
    assert len(PYTHON) == len(PRINTED)
    assert len(YAMLS) == 3
    assert README.index(f"```python\n{PYTHON[0]}") < README.index("```yaml")


@pytest.mark.parametrize("number", range(len(PRINTED)))
def test_a_block_of_python_works_as_it_stands(tmp_path: Path, number: int) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PYTHON[number]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == PRINTED[number]


# The examples of the project's specification, which have to load word for word.
EXAMPLES = [
    """\
tracker_store: {type: in_memory, max_event_history: 100}
""",
    """\
tracker_store: {type: redis, url: "redis://localhost:6379", db: 0, password: \
"${REDIS_PASSWORD}", record_exp: 86400}
""",
    """\
tracker_store: {type: sql, dialect: postgresql, host: postgres.example.com, \
port: 5432, db: rasa_conversations,
  username: "${DB_USER}", password: "${DB_PASSWORD}", pool_size: 50, max_overflow: 100}
""",
]


@pytest.mark.parametrize("number", range(3))
def test_a_deployment_example_loads_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    assert YAMLS[number] == EXAMPLES[number]
    for name in ("REDIS_PASSWORD", "DB_USER", "DB_PASSWORD"):
        monkeypatch.setenv(name, "secret")
    path = tmp_path / "endpoints.yml"
    path.write_text(YAMLS[number], encoding="utf-8")
    config = AvailableEndpoints.read_endpoints(path).tracker_store
    assert config is not None
    refusal = ""
    try:
        store = create_tracker_store(config)
    except errors.ConfigurationError as error:
        refusal = str(error)
    if refusal:  # its backend or its driver is missing, and nothing else is wrong
        assert re.search("pip install|not part of this version yet", refusal)
    else:
        given = YAML(typ="safe").load(YAMLS[number])["tracker_store"]
        assert store.max_event_history == given.get("max_event_history")


# -- configuration ---------------------------------------------------------------------


def config_class(name: str) -> type[StoreConfig]:
    config = STORES[name].config
    assert config is not None
    module, _, attribute = config.partition(":")
    found: Any = getattr(import_module(module), attribute)
    return found  # type: ignore[no-any-return]


def keys_of(config: type[StoreConfig]) -> set[str]:
    """Return the keys as they are written in a file."""
    names = {*config.model_fields, *config.shorthands} - set(StoreConfig.model_fields)
    return {
        name.removesuffix("_name") if name == "schema_name" else name for name in names
    }


def words(text: str) -> set[str]:
    return set(re.findall(r"`([a-z_]+)`", text))


def sections(text: str) -> dict[str, str]:
    """Return the text below each heading that is the name of a type."""
    parts = re.split(r"^## `([a-z_]+)`$", text, flags=re.MULTILINE)
    parts = [part.partition("\n## ")[0] for part in parts]
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", STORES)
def test_every_key_of_every_type_is_documented(name: str) -> None:
    expected = keys_of(config_class(name))
    first_cells = re.findall(
        r"^\| (`.*?) \|", sections(CONFIGURATION)[name], re.MULTILINE
    )
    assert words(" ".join(first_cells)) == expected
    if expected:
        [row] = re.findall(rf"^\| `{name}` \| (`.*) \|$", README, re.MULTILINE)
        assert words(row) - {"url"} == expected


def test_the_keys_of_all_types_are_documented() -> None:
    expected = {
        "type",
        "strict",
        "retry",
        "fail_safe",
        "cache",
        "encryption",
        "audit",
        *StoreConfig.model_fields,
    }
    [row] = re.findall(r"^\| all \| (.*) \|$", README, re.MULTILINE)
    assert words(row) == expected
    table = CONFIGURATION.split("## Keys that every type has")[1].split("\n## ")[0]
    assert (
        words(" ".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))) == expected
    )


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("retry", RetryConfig),
        ("fail_safe", FailSafeConfig),
        ("cache", CacheConfig),
        ("encryption", EncryptionConfig),
        ("audit", AuditConfig),
    ],
)
def test_the_keys_of_wrappers_are_documented(name: str, config: type[Section]) -> None:
    table = CONFIGURATION.split(f"| key of `{name}` |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert words(" ".join(rows)) == set(config.model_fields)


# -- what is named exists --------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    missing = [
        link for link in links if not (ROOT / page).parent.joinpath(link).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(
        r"`((?:tests|tracker_store_async|docs|benchmarks)/[\w./]+)`", text
    )
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_error_that_is_named_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+(?:Error|Exception))`", text))
    assert {name for name in named if not hasattr(errors, name)} == set()


def test_the_command_line_is_described_as_it_is(tmp_path: Path) -> None:
    described = set(re.findall(r"^tracker-store (\w+)", README, re.MULTILINE))
    lines = output_of("--help", cwd=tmp_path)
    commands = {line.split()[0] for line in lines[lines.index("Commands:") + 1 :]}
    assert described == commands


def test_the_lines_are_not_too_long() -> None:
    """Tables and code are as wide as they are; prose is wrapped."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
        long = [
            line
            for line in prose.splitlines()
            if len(line) > 100 and not line.startswith("|")
        ]
        assert long == []
