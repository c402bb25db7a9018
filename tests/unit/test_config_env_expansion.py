"""`${VARIABLE}` in configuration values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker_store_async.env_expansion import expand_environment
from tracker_store_async.errors import ConfigurationError

ENVIRONMENT = {"H": "db.example.com", "PORT": "5432", "EMPTY": "", "TRICKY": "${H}$H"}


def expand(value):
    return expand_environment(value, "tracker_store", ENVIRONMENT)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${H}", "db.example.com"),
        ("redis://${H}:${PORT}/0", "redis://db.example.com:5432/0"),
        ("${EMPTY}", ""),
        ("${TRICKY}", "${H}$H"),  # what a variable holds is not expanded again
        ("pa$$w0rd$H$", "pa$$w0rd$H$"),
        ("{H} $ {H} ${H", "{H} $ {H} ${H"),
        (5432, 5432),
        (None, None),
        ([1, "${PORT}"], [1, "5432"]),
        ({"query": {"host": "${H}"}}, {"query": {"host": "db.example.com"}}),
        ({"${H}": "x"}, {"${H}": "x"}),  # a key is a name, not a value
    ],
)
def test_references_are_replaced(value, expected):
    assert expand(value) == expected


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"password": "secret-${UNSET_ONE}"}, "tracker_store.password"),
        ({"query": {"a": ["x", "${UNSET_ONE}"]}}, "tracker_store.query.a[1]"),
    ],
)
def test_unset_variable_is_an_error_that_names_key_and_variable(value, where):
    with pytest.raises(ConfigurationError) as raised:
        expand(value)
    assert str(raised.value) == (
        f"{where}: the environment variable UNSET_ONE is not set"
    )


@pytest.mark.parametrize("inside", ["", "H:-default", "0", "hunter2 x"])
def test_what_is_no_variable_name_is_refused_without_quoting_it(inside):
    with pytest.raises(ConfigurationError, match="the name of one") as raised:
        expand({"password": f"${{{inside}}}"})
    assert str(raised.value).startswith("tracker_store.password: ")
    assert inside == "" or inside not in str(raised.value).replace("tracker_store", "")


def test_the_process_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("TRACKER_STORE_TEST_HOST", "h")
    assert expand_environment("${TRACKER_STORE_TEST_HOST}", "url") == "h"


@given(st.text().filter(lambda text: "${" not in text))
def test_text_without_a_reference_stays_what_it_is(text):
    assert expand(text) == text


@given(before=st.text().filter(lambda text: "$" not in text), held=st.text())
def test_whatever_a_variable_holds_is_taken_as_it_is(before, held):
    assert expand_environment(f"{before}${{X}}", "key", {"X": held}) == before + held
