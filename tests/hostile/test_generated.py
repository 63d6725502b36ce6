"""Trials that hypothesis makes up: settings, JSON, texts that are printed, secrets in every form."""

import json
import os
import re
import sys
from contextlib import suppress
from unittest.mock import patch

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trials import Trial, broken, fit, forms

from embedlab.clean import one_line, printable, redact, searches
from embedlab.readers import DEEPEST, JSONError, parsed

KEYS = ("seeds", "size", "prompt", "sampler.steps", "guidance.scale", "guidance.negative", "encoder.skip", "+x")
VALUES = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.text("[]{}(),:=$'\" \\abc01.-", max_size=12),
    st.recursive(st.integers(-3, 3) | st.booleans() | st.none(), lambda inner: st.lists(inner, max_size=3)).map(
        lambda value: json.dumps(value).replace(" ", "")
    ),
)
ONCE = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def fresh(tmp_path_factory):
    return lambda: tmp_path_factory.mktemp("generated") / "run"


@ONCE
@given(key=st.sampled_from(KEYS), value=VALUES)
def test_whatever_a_setting_is_explain_answers_with_a_table_or_one_line(forks, fresh, key, value):
    folder, words = fresh(), ("explain", f"{key}={value}")
    outcome = forks(folder, words=words)
    trial = Trial("generated", words, "embedlab: ") if outcome.code == 2 else Trial("generated", words)
    assert not broken(trial, outcome, folder)


@given(st.text())
def test_what_is_printed_is_printable_and_a_line_is_one(text):
    assert all(fit(sign) for sign in printable(text))
    assert "\n" not in one_line(text)
    assert printable(printable(text)) == printable(text)


SAFE = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Cf", "Cn", "Co"))


LEAF = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(SAFE)
ANYTHING = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(SAFE), inner))


@given(st.text(SAFE, min_size=10, max_size=40))
def test_a_secret_is_found_in_every_form(secret):
    core = re.sub(r"""^[\s\\'"]+|[\s\\'"]+$""", "", secret)
    with patch.dict(os.environ, {"A_TOKEN": secret}):
        if len(core) < 8:
            return
        told = {**forms(core), **{f"YAML {w}": yaml.dump([f"a {core} b"], width=w).encode() for w in (8, 30, 200)}}
        told["YAML as it is"] = yaml.dump([core], allow_unicode=True, width=9).encode()
        for name, form in told.items():
            text = form.decode()
            if name != "base64":
                assert "***" in redact(text), (name, text)
            assert "***" in redact(f"x {text} y"), (name, text)
        assert redact({core: [core]}) == {"***": ["***"]}


@given(st.text(st.sampled_from("aé𐀀\u00a0/%&+ '\"\\\n"), min_size=20, max_size=40).map(str.strip))
def test_what_is_nearly_a_secret_is_left_alone_and_takes_no_longer(begin):
    core = re.sub(r"""^[\s\\'"]+|[\s\\'"]+$""", "", begin)
    if len(core) < 8:
        return
    with patch.dict(os.environ, {"A_TOKEN": core + "z"}):
        for name, form in forms(core).items():
            text = form.decode()
            assert redact(text + "y") == text + "y", (name, text)


@pytest.mark.parametrize(
    ("value", "near"),
    [
        ("é ", "é\\\n   "),
        ('é" ', 'é\\"\\\n   '),
        ("\u2003", "\\\n   "),
        ("z '", "z' \\\n"),
        ("+ ", "++"),
        ("%", "%25"),
        ("'\"", "\\u0022"),
        ("é/", "\\"),
    ],
    ids=ascii,
)
def test_looking_for_a_secret_takes_steps_as_there_are_signs(value, near):
    def steps(times: int) -> int:
        (search,) = searches((f"a{value * 12}bcdefgz",))
        text, calls = f"a{near * times}bcdefgy", []
        sys.setprofile(lambda frame, event, called: calls.append(event) if event == "c_call" else None)
        try:
            assert list(search.spans(text)) == []
        finally:
            sys.setprofile(None)
        return len(calls)

    assert steps(400) < 2.5 * steps(200)


@given(ANYTHING)
def test_json_comes_back_as_it_was(value):
    assert parsed(json.dumps(value)) == value


@given(st.integers(DEEPEST + 1, 100_000), st.sampled_from(["[", '{"a":']))
def test_what_is_nested_too_deeply_is_refused_however_it_is_nested(depth, sign):
    with pytest.raises(JSONError, match="levels deep"):
        parsed(sign * depth + "1" + ("]" if sign == "[" else "}") * depth)


@given(st.binary(max_size=200))
def test_other_bytes_are_json_or_say_why_not(data):
    with suppress(JSONError):
        json.dumps(parsed(data.decode("utf-8", "replace")))
