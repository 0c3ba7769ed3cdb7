"""The sandbox of templates: what renders, and what does not get out, stay or grow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.meta import find_undeclared_variables
from pydantic import JsonValue

from runtara.agents import AgentError
from runtara.agents.templates import render, syntax
from tests.support.perform import perform, refused

CONTEXT: dict[str, JsonValue] = {
    "name": "Ann",
    "n": 3,
    "none": None,
    "yes": True,
    "rows": [{"n": 1, "items": ["a"]}, {"n": 2}],
    "order": {"items": [1, 2], "keys": "k", "a b": 1},
    "tree": [{"v": 1, "c": [{"v": 2, "c": []}]}, {"v": 3, "c": []}],
}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Hello {{ name|upper }}, {{ n + 1 }}!", "Hello ANN, 4!"),
        ("{% if yes %}a{% else %}b{% endif %}{{ yes }} {{ not yes }}", "atrue false"),
        ("[{{ none }}{{ missing }}{{ missing.a.b[0] }}]", "[]"),
        ("{{ order.items }} {{ order.keys }} {{ order['a b'] }}", "[1, 2] k 1"),
        ("{% for k, v in tree[0].items() %}{{ k }}{{ v }};{% endfor %}", 'v1;c[{"v": 2, "c": []}];'),
        ("{% for row in rows %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}{% endfor %}", "1/2,2/2"),
        ("{% for node in tree recursive %}{{ node.v }}[{{ loop(node.c) }}]{% endfor %}", "1[2[]]3[]"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(1) }}{{ m('<') }}", "<1><<>"),
        ("{{ rows|map(attribute='n')|join('-') }} {{ rows|sum(attribute='n') }}", "1-2 3"),
        ("{{ rows|tojson }}", '[{"n": 1, "items": ["a"]}, {"n": 2}]'),
        ("{{ 'a' ~ n ~ none ~ yes }} {{ '%05.1f'|format(n) }} {{ '{:>4}'.format(n) }}", "a3true 003.0    3"),
        ("{{ rows|map(attribute='n') }}", "[1, 2]"),
        ("{{ 'a,b'.split(',')|join('|') }} {{ 'x'|center(5) }} {{ 'abc'|replace('b', 'B') }}", "a|b   x   aBc"),
        ("{{ 'ü' * 3 }} {{ 2 ** 10 }} {{ 7 // 2 }} {{ 7 % 4 }}", "üüü 1024 3 3"),
        ("{% set ns = namespace(t=0) %}{% for r in rows %}{% set ns.t = ns.t + r.n %}{% endfor %}{{ ns.t }}", "3"),
        ("{{ 'a\nb'|indent(2) }} {{ 'a b c'|wordwrap(3) }}", "a\n  b a b\nc"),
        ("{{ missing|default('d') }} {{ 1.5 }}", "d 1.5"),
        ("{% for i in missing %}x{% else %}none{% endfor %}", "none"),
        ("{{ [1, 2, 3]|batch(2, 0)|list }} {{ 1.26|round(1) }} {{ [1]|tojson(2) }}", "[[1, 2], [3, 0]] 1.3 [\n  1\n]"),
        ("", ""),
        ("a\n", "a\n"),
        ("日本 {{ '😀' }}", "日本 😀"),
    ],
)
def test_a_template_is_filled_in(source: str, expected: str) -> None:
    assert perform("text", "render-template", {"text": source, "context": CONTEXT}) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ name|attr('__class__') }}",
        "{{ name['__class__'] }}",
        "{{ order['__class__'].__init__ }}",
        "{{ range.__globals__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ dict.__base__ }}",
        "{{ missing.__class__ }}",
        "{{ '{0.__class__}'.format(name) }}",
        "{{ '{0.__class__}'|format(name) }}",
        "{{ (rows|map(attribute='n')).gi_frame.f_globals }}",
        "{{ rows|map(attribute='__class__')|list }}",
        "{{ rows|groupby('__class__') }}",
        "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
        "{{ rows.append(1) }}",
        "{{ order.update({}) }}",
        "{{ order.pop('keys') }}",
        "{{ lipsum() }}",
        "{{ cycler(1) }}",
        "{{ joiner() }}",
        "{{ range }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% from 'os' import path %}",
        "{% extends 'x' %}",
        "{{ name|random }}",
        "{{ name|pprint }}",
        "{% do rows %}",
        "{% debug %}",
    ],
)
def test_nothing_gets_out_of_the_sandbox(source: str) -> None:
    before = repr(CONTEXT)
    with pytest.raises(AgentError) as caught:
        render(source, CONTEXT)
    assert caught.value.code in {"TEXT_TEMPLATE_REFUSED", "TEXT_TEMPLATE_RENDER_ERROR", "TEXT_TEMPLATE_PARSE_ERROR"}
    assert repr(CONTEXT) == before


GROW = (
    "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}{% set ns.x = STEP %}{% endfor %}{{ ns.x }}"
)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for x in [[1, 2, 3]] recursive %}{{ loop(x) if x is iterable else loop([[x, x], [x, x]]) }}{% endfor %}",
        "{{ range(10 ** 9) }}",
        "{{ 'a' * 10 ** 9 }}",
        "{{ 10 ** 9 * 'a' }}",
        "{{ [0] * 10 ** 9 }}",
        "{{ 9 ** 9999 ** 9 }}",
        "{{ (9 ** 1000) ** 1000 }}",
        "{{ 'a'|center(10 ** 9) }}",
        "{{ [1]|batch(10 ** 9, 0)|list }}",
        "{{ [1]|slice(10 ** 9)|list }}",
        "{{ 1.5|round(10 ** 9, 'ceil') }}",
        "{{ [1]|tojson(indent=10 ** 9) }}",
        "{{ ['a']|map('center', 10 ** 9)|list }}",
        "{{ 'a'.center(10 ** 9) }}",
        "{{ 'a'.ljust(10 ** 9) }}",
        "{{ 'a'.rjust(width=10 ** 9) }}",
        "{{ '1'.zfill(10 ** 9) }}",
        "{{ '\t'.expandtabs(10 ** 9) }}",
        "{{ '%999999999d'|format(1) }}",
        "{{ '%*d'|format(999999999, 1) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ '{:>{}}'.format(1, 999999999) }}",
        "{{ '{x:999999999}'.format_map({'x': 1}) }}",
        "{{ 'a\nb'|indent(10 ** 9) }}",
        "{{ ('ab ' * 99999)|wordwrap(1, wrapstring='x' * 99999) }}",
        "{{ 'a'.translate({97: 'b'}) }}",
        "{{ (1).to_bytes(10 ** 9, 'big') }}",
        GROW.replace("STEP", "ns.x ~ ns.x"),
        GROW.replace("STEP", "ns.x + ns.x"),
        GROW.replace("STEP", "ns.x.replace('a', ns.x)"),
        GROW.replace("STEP", "ns.x|replace('a', ns.x)"),
        GROW.replace("STEP", "ns.x.join(ns.x)"),
        GROW.replace("STEP", "ns.x|join(ns.x)"),
        GROW.replace("STEP", "[ns.x, ns.x]|join"),
        GROW.replace("STEP", "[{'k': ns.x}, {'k': ns.x}]|join(attribute='k')"),
        GROW.replace("STEP", "'%s%s'|format(ns.x, ns.x)"),
        GROW.replace("STEP", "'{0}{0}'.format(ns.x)"),
        "{% set ns = namespace(x=9) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}{{ ns.x }}",
        "{% for i in range(99999) %}" + "x" * 1_000 + "{% endfor %}",
    ],
)
def test_nothing_grows_or_runs_without_bounds(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtara.agents.template_bounds.SECONDS", 1.0)
    with pytest.raises(AgentError) as caught:
        render(source, {})
    assert caught.value.code in {"TEXT_TEMPLATE_REFUSED", "TEXT_TEMPLATE_RENDER_ERROR", "TEXT_TEMPLATE_TOO_LARGE"}


def test_time_is_bounded_whatever_the_turns_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtara.agents.template_bounds.SECONDS", 0.05)
    source = "{% for a in range(9999) %}{% set x = rows|sort(attribute='n')|map(attribute='n')|list %}{% endfor %}"
    with pytest.raises(AgentError, match=r"TEXT_TEMPLATE_REFUSED.*longer"):
        render(source, {"rows": [{"n": n % 97} for n in range(5_000)]})


@pytest.mark.parametrize(
    ("source", "code", "word"),
    [
        ("{{ name", "TEXT_TEMPLATE_PARSE_ERROR", "line 1"),
        ("a\n{% if %}", "TEXT_TEMPLATE_PARSE_ERROR", "line 2"),
        ("{{ name|nofilter }}", "TEXT_TEMPLATE_PARSE_ERROR", "nofilter"),
        ("{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}", "TEXT_TEMPLATE_PARSE_ERROR", ""),
        ("x" * (1024 * 1024 + 1), "TEXT_TEMPLATE_PARSE_ERROR", "characters"),
        ("{{ 1 / 0 }}", "TEXT_TEMPLATE_RENDER_ERROR", "zero"),
        ("{{ missing() }}", "TEXT_TEMPLATE_RENDER_ERROR", "undefined"),
        ("{{ name + 1 }}", "TEXT_TEMPLATE_RENDER_ERROR", ""),
        ("{% for i in 5 %}{% endfor %}", "TEXT_TEMPLATE_RENDER_ERROR", "iterable"),
    ],
)
def test_what_is_wrong_with_a_template_is_said(source: str, code: str, word: str) -> None:
    error = refused("text", "render-template", {"text": source, "context": CONTEXT})
    assert error.code == code
    assert word in str(error)


def test_what_a_template_reads_can_be_seen_in_its_tree() -> None:
    assert find_undeclared_variables(syntax("{% for x in rows %}{{ x ~ name }}{% endfor %}")) == {"rows", "name"}


@given(st.text(st.sampled_from("{}%a.b|[]()'\" ifor~*+12\n"), max_size=40))
def test_no_template_does_anything_but_render_or_be_refused(source: str) -> None:
    try:
        assert isinstance(render(source, CONTEXT), str)
    except AgentError as error:
        assert error.code.startswith("TEXT_TEMPLATE_")  # noqa: PT017
