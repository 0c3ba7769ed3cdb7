"""Templates: what they render, and what they refuse."""

import pytest

from runtara.dsl.templates import TemplateFailed, render

ROOTS = {"data": {"name": "Zoë", "n": None, "ok": True, "items": [{"a": 1}]}, "steps": {}}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("Dear {{ data.name }},\n", "Dear Zoë,\n"),
        ("[{{ data.none.deeper.still }}{{ nothing }}]", "[]"),
        ("{{ data.n }}|{{ data.ok }}|{{ data['items'] }}", '|true|[{"a": 1}]'),
        ("{% for item in data['items'] %}{{ item.a * 3 }}{% endfor %}", "3"),
        ("{{ 'ab' * 2 }}", "abab"),
    ],
)
def test_a_template_renders(text: str, result: str) -> None:
    assert render(text, ROOTS) == result


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ data.items.__self__.__class__ }}{{ data.update({'x': 1}) }}",
        "{{ 'x' * 100000000 }}",
        "{{ [0] * 100000000 }}",
        "{{ 9 ** 999999999 }}",
        "{{ '%999999999d' % 1 }}",
        "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
        "{{ 1 / 0 }}",
        "{{ data.name",
        "{{ data.name | nofilter }}",
    ],
)
def test_a_template_that_reaches_out_or_fills_the_memory_fails(text: str) -> None:
    with pytest.raises(TemplateFailed):
        render(text, ROOTS)
