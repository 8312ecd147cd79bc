"""What the templates of a message promise: strictness, escaping, limits, and a text made of the HTML."""

import re
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from delivery.templating import Limits, TemplateProblem, compile_content, html_to_text_template

pytestmark = pytest.mark.once

ATTACK_SECONDS = 1.0
ATTACK_KILOBYTES = 50_000
PROC = Path("/proc/self")  # where there is none, memory is not looked at


def problem(data=None, **parts):
    """The problem of the one part given, whether it shows at compiling or at rendering."""
    source = {"subject": "", "text": "", "html": "", **parts}
    with pytest.raises(TemplateProblem) as caught:
        compile_content(**source).render(data or {})
    return caught.value


def rendered(text, **data):
    return compile_content("", text, "").render(data).text


def resident_memory():
    """Kilobytes this process holds; lets the count of the peak begin anew."""
    if not (PROC / "clear_refs").exists():
        return 0
    (PROC / "clear_refs").write_text("5")
    return peak_memory()


def peak_memory():
    """The most kilobytes this process held since. Tracing each allocation would take minutes."""
    if not (PROC / "status").exists():
        return 0
    return int(re.search(r"VmHWM:\s+(\d+)", (PROC / "status").read_text())[1])


# Rendering


def test_every_part_is_rendered_and_only_the_html_is_escaped():
    content = compile_content("Hi {{ n }}", "Hi {{ n }}\n", "<p>{{ n }}</p>", {"X-Name": "{{ n }}"})

    mail = content.render({"n": "<A & B>"})

    assert mail.subject == "Hi <A & B>"
    assert mail.text == "Hi <A & B>\n"
    assert mail.html == "<p>&lt;A &amp; B&gt;</p>"
    assert mail.headers == (("X-Name", "<A & B>"),)


def test_concatenation_in_the_html_escapes_values_and_leaves_markup():
    content = compile_content("", "", "{{ '<b>'|safe ~ n ~ '</b>'|safe }}{% set x %}<i>{{ n }}</i>{% endset %}{{ x }}")

    assert content.render({"n": "<"}).html == "<b>&lt;</b><i>&lt;</i>"


def test_parts_that_are_not_there_stay_empty():
    assert compile_content("s", "", "").render({}).html == ""


def test_white_space_around_subject_and_header_is_taken_off():
    mail = compile_content(" \n{{ s }}\n", "", "", {"X-A": " a "}).render({"s": "News "})

    assert (mail.subject, mail.headers) == ("News", (("X-A", "a"),))


@pytest.mark.parametrize("value", ["a\r\nBcc: x@y.example", "a\nb", "a\x00b", "a\u2028b", "a\x85b", "a\x7fb", "a\tb"])
def test_a_subject_or_header_with_a_line_break_or_control_character_is_refused(value):
    subject = problem({"v": value}, subject="{{ v }}")
    header = problem({"v": value}, headers={"X-Foo": "{{ v }}"})

    assert (subject.part, header.part) == ("subject", "header X-Foo")
    assert "cannot carry" in subject.message
    assert "the header X-Foo" in header.message


@pytest.mark.parametrize("name", ["", "X Foo", "X:Foo", "X\nBcc", "Ü"])
def test_a_header_name_that_is_none_is_refused(name):
    assert problem(headers={name: "x"}).part == f"header {name}"


def test_a_key_of_the_data_goes_before_a_method_of_the_dictionary():
    assert rendered("{{ order.items[0] }} {{ plain.items()|list }}", order={"items": ["x"]}, plain={"a": 1}) == (
        "x [('a', 1)]"
    )


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ '%05.1f|%s' % (2.25, 'x') }}", "002.2|x"),
        ("{{ '%s of 12345678 (50%%)' % 3 }}", "3 of 12345678 (50%)"),
        ("{{ '%(a)s'|format(a=1) }}", "1"),
        ("{{ '{:>6,.2f}|{a[0]}|{}'.format(1234.5, 'z', a=[7]) }}", "1,234.50|7|z"),
        ("{{ 'a,b'.split(',')|join('-')|upper }}", "A-B"),
        ("{{ 'abc'|replace('b', 'x')|center(7) }}|", "  axc  |"),
        ("{{ [3, 1, 2]|sort|map('string')|join }}", "123"),
        ("{{ users|selectattr('ok')|map(attribute='n')|list }}", "['x']"),
        ("{{ users|groupby('ok')|map(attribute='grouper')|list }}", "[False, True]"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{{ loop.last }}{% endfor %}", "a1True"),
        ("{% for n in [1, [2, [3]]] recursive %}{{ loop(n) if n is sequence else n }}{% endfor %}", "123"),
        ("{% macro m(x) %}<{{ x }}{{ caller() if caller }}>{% endmacro %}{% call m(1) %}c{% endcall %}", "<1c>"),
        ("{% set ns = namespace(n=0) %}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "3"),
        ("{% block b %}x{% endblock %}{{ self.b() }}", "xx"),
        ("{% set c = cycler('o', 'e') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}", "oeo"),
        ("{{ 2 ** 10 }} {{ 7 % 3 }} {{ 'ab' * 2 }} {{ [1] + [2] }} {{ 'x' if 1 < 2 <= 2 }}", "1024 1 abab [1, 2] x"),
        ("{{ {'b': [1]}|tojson(indent=1) }}", '{\n "b": [\n  1\n ]\n}'),
        ("{{ 'long words here'|wordwrap(5) }}", "long\nwords\nhere"),
        ("{{ 'abcdef'[1:3] }}{{ users[0]['n'] }}", "bcx"),
    ],
)
def test_what_templates_usually_do_works_as_in_jinja(template, expected):
    assert rendered(template, users=[{"n": "x", "ok": True}, {"n": "y", "ok": False}]) == expected


# Strictness


@pytest.mark.parametrize(
    ("template", "line", "named"),
    [
        ("a\n{{ nmae }}", 2, "`nmae` (did you mean `name`?)"),
        ("a\n\n{{ contact.nmae }}", 3, "`contact.nmae` (did you mean `name`?)"),
        ("{% if name %}\n{{ contact['city']|upper }}{% endif %}", 2, "`contact.city`"),
        ("{% for i in missing_items %}{% endfor %}", 1, "`missing_items`"),
        ("{% if missing_plan == 'pro' %}{% endif %}", 1, "`missing_plan`"),
        ("{{ nobody() }}", 1, "`nobody`"),
        ("{% macro m() %}\n\n{{ contact.zip }}{% endmacro %}\n{{ m() }}", 3, "`contact.zip`"),
    ],
)
def test_an_unknown_variable_is_named_with_part_and_line(template, line, named):
    found = problem({"name": "N", "contact": {"name": "N"}}, html=template)

    assert (found.part, found.line) == ("html", line)
    assert named in found.message
    assert f"The HTML, line {line}" in found.message


@pytest.mark.parametrize(
    ("template", "line", "words"),
    [
        ("a\n{% for x in y %}", 2, "endfor"),
        ("a\n{{ x|shuot }}", 2, "no filter `shuot`"),
        ("{{ x|uper }}", 1, "did you mean `upper`?"),
        ("{% if x %}{{ x|uper }}{% endif %}", 1, "no filter `uper`"),
        ("{{ x is evn }}", 1, "no test `evn` (did you mean `even`?)"),
        ("a\n{% include 'x' %}", 2, "`{% include %}` cannot be used"),
        ("{% import 'x' as y %}", 1, "`{% import %}`"),
        ("{% from 'x' import y %}", 1, "`{% from %}`"),
        ("{% extends 'x' %}", 1, "`{% extends %}`"),
        ("{{ x|random }}", 1, "`random` cannot be used"),
        ("{% foo %}", 1, "unknown tag 'foo'"),
        ("{{ " + "(" * 3000 + " }}", 1, "Make it simpler"),
        ("{% if a %}" * 150 + "{% endif %}" * 150, 1, "Make it simpler"),
        ("{{ f(a=1, a=2) }}", 1, "Make it simpler"),
        ("{{ " + "9" * 5000 + " }}", 1, "Make it simpler"),
        ("\n" + "{{ a }}" * 25_000, 2, "too many tags"),
        ("x" * 500_001, 1, "longer than"),
    ],
)
def test_what_cannot_be_compiled_is_said_with_part_and_line(template, line, words):
    with pytest.raises(TemplateProblem) as caught:
        compile_content("", template, "")

    assert (caught.value.part, caught.value.line) == ("text", line)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("\n{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("\n{{ 'a' + 1 }}", "TypeError"),
        ("\n{{ [1]|map('nofilter')|list }}", "No filter named 'nofilter'"),
        ("\n{% for a, b in [1] %}{% endfor %}", "TypeError"),
        ("\n{{ 'x'() }}", "cannot be called"),
        ("\n{{ 'x'.upper }}", "write `()` after it"),
        ("\n{{ {'a': 1}.items }}", "write `()` after it"),
        ("\n{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "more than 50 deep"),
    ],
)
def test_an_error_while_rendering_is_told_with_its_line(template, words):
    found = problem(text=template)

    assert (found.part, found.line) == ("text", 2)
    assert words in found.message


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ ''|attr('__class__') }}",
        "{{ ['']|map(attribute='__class__')|list|first }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ '{a.__class__}'.format_map({'a': 1}) }}",
        "{{ ('{0.__class__}'|safe).format(1) }}",
        "{{ self.__init__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ namespace(a=1)._Namespace__attrs }}",
        "{{ namespace(**{'__self__': 'x', '__name__': '__class__'})() }}",
        "{{ namespace(**{'__self__': 'x', '__name__': 'encode'})() }}",
        "{{ dict.fromkeys([1]) }}",
        "{{ dict['a']() }}",
        "{{ 'x'.encode() }}",
        "{{ (5).to_bytes(4) }}",
        "{{ 'x'.translate({}) }}",
        "{{ [1].append(2) }}",
        "{{ {}.update(a=1) }}",
        "{% for i in [1] %}{{ loop._recurse }}{% endfor %}",
        "{% macro m() %}{% endmacro %}{{ m._func }}",
        "{{ joiner().sep }}",
        "{{ lipsum(5) }}",
    ],
)
def test_a_template_reaches_nothing_but_its_data(template):
    assert problem(html=template).part == "html"


# Variables


@pytest.mark.parametrize(
    ("template", "needed", "optional"),
    [
        ("{{ a }} {{ b.c }} {{ d['e'] }}", "abd", ""),
        ("{{ a|default('x') }} {{ b|d }}", "", "ab"),
        ("{{ a.b|default('x') }}", "a", ""),
        ("{{ a|upper|default('x') }}", "a", ""),
        ("{{ a|default(b) }}", "b", "a"),
        ("{% if a is defined %}{{ a }}{% endif %}", "", "a"),
        ("{% if a is defined %}{% else %}{{ a }}{% endif %}", "a", ""),
        ("{% if a is not defined %}{% else %}{{ a }}{% endif %}", "", "a"),
        ("{% if a is undefined %}{% elif b %}{{ a }}{% endif %}", "b", "a"),
        ("{% if a is defined and b is defined %}{{ a }}{{ b }}{% endif %}", "", "ab"),
        ("{% if a is defined or b is defined %}{{ a }}{% endif %}", "a", "b"),
        ("{{ a if a is defined else 'x' }}", "", "a"),
        ("{% if a is defined and a.b %}{% endif %}", "", "a"),
        ("{{ a|d('') }}{{ a }}", "a", ""),
        ("{% if a %}{{ b }}{% endif %}", "ab", ""),
        ("{% set a = 1 %}{{ a }}", "", ""),
        ("{{ a }}{% set a = 1 %}", "a", ""),
        ("{% set a = a|default('x') %}{{ a }}", "", "a"),
        ("{% if a is not defined %}{% set a = 1 %}{% endif %}{{ a }}", "", "a"),
        ("{% if b %}{% set a = 1 %}{% endif %}{{ a }}", "ab", ""),
        ("{% for a in b if a %}{{ a }}{{ loop.index }}{% else %}{{ c }}{% endfor %}{{ a }}", "abc", ""),
        ("{% with a = b %}{{ a }}{% endwith %}", "b", ""),
        ("{% macro m(a, b=c) %}{{ a }}{{ b }}{{ d }}{{ varargs }}{% endmacro %}{{ m(1) }}", "cd", ""),
        ("{% call(a) range(b) %}{{ a }}{% endcall %}", "b", ""),
        ("{% set a %}{{ b }}{% endset %}{{ a }}{% filter upper %}{{ c }}{% endfilter %}", "bc", ""),
        ("{% set n = namespace(x=a) %}{% set n.x = b %}", "ab", ""),
        ("{% block q %}{{ a }}{% endblock %}{{ self.q() }}{{ range(3) }}", "a", ""),
    ],
)
def test_needed_and_optional_variables_are_told_apart(template, needed, optional):
    content = compile_content("", template, "")

    assert (content.variables, content.optional_variables) == (frozenset(needed), frozenset(optional))


def test_a_variable_needed_in_one_part_is_not_optional():
    content = compile_content("{{ a|d('') }}", "x\n{{ a }}{{ b }}", "", {"X-C": "{{ c|d }}"})

    assert (content.variables, content.optional_variables) == ({"a", "b"}, {"c"})
    assert [content.where(name) for name in "abc"] == [("subject", 1), ("text", 2), ("header X-C", 1)]


NAMES = st.sampled_from("abc")
TESTS = st.recursive(
    st.one_of(NAMES, NAMES.map("{} is defined".format), NAMES.map("{} is undefined".format)),
    lambda inner: st.one_of(
        inner.map("not ({})".format),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: "({} {} {})".format(*t)),
    ),
    max_leaves=4,
)
TEMPLATES = st.recursive(
    st.one_of(
        NAMES.map("{{{{ {} }}}}".format),
        NAMES.map("{{{{ {}|default('') }}}}".format),
        NAMES.map("{{% set {} = 'x' %}}".format),
        st.tuples(NAMES, TESTS).map(lambda t: "{{{{ {} if {} else '' }}}}".format(*t)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=4).map("".join),
        st.tuples(TESTS, inner, inner).map(lambda t: "{{% if {} %}}{}{{% else %}}{}{{% endif %}}".format(*t)),
        st.tuples(NAMES, NAMES, inner).map(lambda t: "{{% for {} in {} %}}{}{{% endfor %}}".format(*t)),
    ),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None, print_blob=True)
@given(TEMPLATES, st.sampled_from(["", "x"]))
def test_an_optional_variable_is_never_missed(template, value):
    content = compile_content("", template, "")
    note(f"{template}: needed {content.variables}, optional {content.optional_variables}")

    message = ""
    try:
        content.render(dict.fromkeys(content.variables, value))
    except TemplateProblem as found:
        message = found.message

    # A name that a block uses and that is set after the block may be missed: Jinja never looks for it in the data.
    assert message == "" or "the data has no" in message
    assert not any(f"`{name}`" in message for name in content.variables | content.optional_variables)


# Limits

NS = "{% set n = namespace(v='x', l=[1], t=(1,), i=10) %}"
FOREVER = "{% for i in range(99999) %}"
MANY = "{% for i in range(3000) %}"
END = "{% endfor %}"

ATTACKS = {
    "nested loops": FOREVER * 3 + "{{ i }}" + END * 3,
    "loops that filter everything out": FOREVER + "{% for j in range(99999) if false %}{% endfor %}" + END,
    "recursive loop": "{% for i in d.list recursive %}{{ loop(d.list) }}{{ loop(d.list) }}{% endfor %}",
    "recursive loop with a long test": "{% for j in range(99) %}{% for i in range(999) if "
    + " ~ ".join(["e"] * 3000)
    + " recursive %}{% endfor %}{% endfor %}",
    "recursive loop that filters": MANY + "{% for i in [1] if i recursive %}{{ loop(range(99999)) }}{% endfor %}" + END,
    "a loop with a long body": MANY + "{% if false %}{% endif %}" * 1500 + END,
    "a loop that writes": FOREVER + "{{ d.big }}" + END,
    "a loop that captures": "{% set x %}" + MANY + "static text " * 5000 + END + "{% endset %}{{ x }}",
    "a loop that escapes": "{% set x %}" + MANY + "{{ d.quotes }}" + END + "{% endset %}",
    "a filter block": "{% filter upper %}" + MANY + "{{ d.big }}" + END + "{% endfilter %}",
    "set blocks that double": "{% set x='ab' %}" + "{% set x %}{{x}}{{x}}{% endset %}" * 40,
    "~ that doubles": NS + MANY + "{% set n.v = n.v ~ n.v %}" + END,
    "+ that doubles": NS + MANY + "{% set n.v = n.v + n.v %}" + END,
    "+ that doubles a list": NS + MANY + "{% set n.l = n.l + n.l %}" + END,
    "a list that grows": NS + MANY + "{% set n.l = n.l + [d.big ~ i] %}" + END,
    "lists of lists": NS + MANY + "{% set n.l = [n.l, n.l] %}" + END + "{{ n.l }}",
    "hash of tuples of tuples": NS + "{% for i in range(40) %}{% set n.t = (n.t, n.t) %}{% endfor %}{{ {n.t: 1} }}",
    "hash of a deep tuple": NS + MANY + "{% set n.t = (n.t,) %}" + END + "{{ {n.t: 1} }}",
    "deep dictionaries": NS + MANY + "{% set n.l = dict(a=n.l) %}" + END + "{{ n.l }}",
    "hash of a long tuple, looked up": "{% set t = (1,) * 9000 %}" + MANY + "{{ {}[t] is defined }}" * 9 + END,
    "hash of a long tuple, as a key": "{% set t = (1,) * 9000 %}{% for i in range(300) %}{% set x = {"
    + "t: 1, " * 900
    + "} %}{% endfor %}",
    "varargs of varargs": "{% macro m() %}{{ m(varargs, varargs) }}{% endmacro %}{{ m(1) }}",
    "comparison of varargs of varargs": "{% set n = namespace() %}{% macro m(k) %}{% if k %}"
    "{{ m(k-1, varargs, varargs) }}{% else %}{% set n.v = varargs %}{% endif %}{% endmacro %}{{ m(28) }}"
    "{% set a = n.v %}{{ m(28) }}{% set b = n.v %}"
    "{% for i in range(2) %}{{ loop.changed(a if loop.first else b) }}{% endfor %}",
    "kwargs of kwargs": "{% macro m() %}{{ m(a=kwargs, b=kwargs) }}{% endmacro %}{{ m(a=1) }}",
    "a macro without end": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a macro that doubles": "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(40) }}",
    "a macro with a long body": "{% macro m() %}" + "{{ e }}" * 1500 + "{% endmacro %}" + MANY + "{{ m() }}" + END,
    "call blocks": "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}"
    + ("{% call m() %}" * 30 + "x" + "{% endcall %}" * 30),
    "a block in itself": "{% block b %}{{ self.b() }}{% endblock %}",
    "text times number": "{{ 'a' * 10**9 }}",
    "number times text": "{{ 999999999 * 'a' }}",
    "list times number": "{{ (range(99999)|list) * 99999 }}",
    "powers": "{{ 9 ** (9 ** 9) }}",
    "a number too long to print": "{{ (10 ** 100000)|string }}",
    "squares of squares": NS + MANY + "{% set n.i = n.i * n.i %}" + END,
    "% with a width": "{{ '%99999999d' % 1 }}",
    "% with a star": "{{ '%*d' % (99999999, 1) }}",
    "% with a precision": "{{ '%.99999999f' % 1.5 }}",
    "% with a nested key": "{{ '%(a(b))99999999d' % {'a(b)': 1} }}",
    "% that repeats": "{{ ('%(a)s' * 1000) % {'a': d.big} }}",
    "% by the filter": "{{ '%99999999d'|format(1) }}",
    "% of markup": "{{ ('%s' * 19|safe) % ((d.quotes,) * 19) }}",
    "format with a width": "{{ '{:>99999999}'.format(1) }}",
    "format with a nested width": "{{ '{:>{w}}'.format(1, w=99999999) }}",
    "format that repeats": "{{ ('{0}' * 1000).format(d.big) }}",
    "format_map": "{{ '{a:>99999999}'.format_map({'a': 1}) }}",
    "format of markup": "{{ ('{:>99999999}'|safe).format(1) }}",
    "format in a loop": MANY + "{{ '{:>9999}{:>9999}'.format(1, 2) }}" + END,
    "center": "{{ 'a'.center(999999999) }}",
    "ljust": "{{ 'a'.ljust(999999999) }}",
    "zfill": "{{ 'a'.zfill(999999999) }}",
    "expandtabs": "{{ ('\t' * 9999).expandtabs(9999) }}",
    "str.join": "{{ ('x' * 10000).join(range(9999)|map('string')) }}",
    "|join": "{{ range(9999)|join('x' * 10000) }}",
    "str.replace": "{{ ('a' * 10000).replace('a', 'b' * 10000) }}",
    "|replace": "{{ ('a' * 10000)|replace('', 'b' * 10000) }}",
    "|replace in what it escapes": "{{ ('\"' * 10000)|replace('#'|safe, 'b' * 10000) }}",
    "|center": "{{ 'a'|center(99999999) }}",
    "|indent": "{{ ('\n' * 99999)|indent(9999, blank=true) }}",
    "|indent by text": "{{ ('\n' * 9999)|indent('x' * 9999, blank=true) }}",
    "|wordwrap of one word": "{{ ('x' * 199999)|wordwrap(1) }}",
    "|wordwrap with a string": "{{ ('x ' * 19999)|wordwrap(1, wrapstring='y' * 9999) }}",
    "|urlize of brackets": "{{ (')' * 99999 ~ 'x)')|urlize }}",
    "|urlize in a loop": MANY + "{{ (')' * 999 ~ 'x)')|urlize }}" + END,
    "|batch": "{{ range(9)|batch(99999999, 'x') }}",
    "|slice": "{{ range(9)|slice(99999999) }}",
    "|tojson with an indent": "{{ [1]|tojson(indent=99999999) }}",
    "|tojson": MANY + "{{ d.big|tojson }}" + END,
    "|round": "{{ 5|round(-999999999) }}",
    "|sum": MANY + "{{ range(99999)|sum }}" + END,
    "|sum of lists": "{{ (range(99999)|batch(2))|sum(start=[]) }}",
    "|map": MANY + "{{ range(9999)|map('string')|length }}" + END,
    "|map to a wide filter": "{{ range(99999)|map('string')|map('center', 9999)|length }}",
    "|map to the meter": "{{ [1]|map('#charged', -99999999) }}" + MANY + MANY + END + END,
    "|map of |map": "{{ 'a'|map(*(['map'] * 5000)) }}",
    "|map of a long path": "{{ (['0' * 9] * 9999)|map(attribute='0.' * 9999 ~ '0') }}",
    "|select": MANY + "{{ range(9999)|select('odd')|length }}" + END,
    "|sort": MANY + "{{ range(9999)|sort|length }}" + END,
    "|unique": MANY + "{{ range(9999)|unique|length }}" + END,
    "|list of text": "{{ ('ä' * 999999)|list }}",
    "|title": "{{ ('a-' * 500000)|title }}",
    "|wordcount": "{{ ('a-' * 900000)|wordcount }}",
    "|xmlattr": MANY + "{{ {'a': d.big}|xmlattr }}" + END,
    "|urlencode": MANY + "{{ d.big|urlencode }}" + END,
    "|escape": MANY + "{% set x = d.quotes|e %}" + END,
    "|upper": MANY + "{% set x = d.big|upper %}" + END,
    "|list|string": MANY + "{{ [d.big, d.big]|list|string }}" + END,
    "|trim": "{% set s = 'a' * 900000 %}{{ s|trim('b' * 500000 ~ 'a') }}",
    "|float": MANY + "{{ ('9' * 200000)|float }}" + END,
    "str.strip": "{% set s = 'a' * 900000 %}{{ s.strip('b' * 500000 ~ 'a') }}",
    "str.rfind": "{% set s = 'a' * 500000 %}{{ s.rfind('b' ~ 'a' * 200000) }}",
    "str.split": "{{ ('aЖ' * 999999).split('a') }}",
    "str.split at white space": "{{ ('ab ' * 500000).split() }}",
    "str.splitlines": "{{ ('ab\n' * 500000).splitlines() }}",
    "slices": MANY + "{% set x = d.big[::-1] %}" + END,
    "comparisons": "{% set a=d.big~'x' %}{% set b=d.big~'x' %}" + MANY + "{{ a == b }}" * 9 + END,
    "searches": MANY + "{{ 'zzz' in d.big }}" * 9 + END,
    "searches in a range": MANY + "{{ 'z' in range(99999) }}" + END,
    "tests": MANY + "{{ d.big is upper }}" * 9 + END,
    "list.index": "{% set l = range(99999)|list %}" + MANY + "{{ l.index(99998) }}" + END,
    "loop.changed": "{% set l = range(9999)|list %}" + MANY + "{{ loop.changed(l + [i]) }}" + END,
    "loop.cycle": MANY + "{{ loop.cycle(*range(9999)) }}" + END,
    "cycler": MANY + "{{ cycler(*range(9999)).next() }}" + END,
    "joiner": "{% set j = joiner(d.big) %}" + MANY + "{{ j() }}" + END,
    "dictionaries": MANY + "{% set x = {'a': d.big ~ i, 'b': d.big ~ i} %}" + END,
    "with": MANY + "{% with a = d.big ~ i %}{% endwith %}" + END,
    "an unknown key like a known one": "{{ {'x' * 90000: 1}['x' * 90001] }}",
    "many arguments": MANY + "{{ [1]|map('string', *range(9999)) }}" + END,
    "wide characters": "{{ '\U0001f600' * 1000001 }}{{ '\U0001f600' * 1000001 }}",
}  # fmt: skip
DATA = {"e": "", "d": {"big": "x" * 100_000, "quotes": '"' * 100_000, "list": [1, 2]}}


@pytest.mark.parametrize("part", ["text", "html"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_stopped_soon_and_in_little_memory(attack, part):
    content = compile_content("", **{"text": "", "html": "", part: ATTACKS[attack]})
    memory_before = resident_memory()
    began = time.thread_time()

    with pytest.raises(TemplateProblem) as caught:
        content.render(DATA)

    seconds = time.thread_time() - began
    assert (caught.value.part, caught.value.line >= 1) == (part, True)
    assert len(caught.value.message) < 600
    assert seconds < ATTACK_SECONDS
    assert peak_memory() - memory_before < ATTACK_KILOBYTES


def test_a_loop_without_end_is_told_by_steps_and_line():
    found = problem(html="<p>\n" + MANY + "\n" + FOREVER + "\n" + END + END)

    assert found.message == "Stopped after 200,000 steps at line 3 of the HTML: a loop that does not end?"
    assert found.line == 3


def test_a_part_that_gets_too_long_is_told_with_its_line():
    found = problem({"d": "x" * 150_000}, text="a\n" + "{{ d }}" * 14)

    assert found.message == (
        "Stopped at line 2 of the text: its result is longer than 2,000,000 characters. Make it smaller."
    )


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (NS + "{% for i in range(60) %}{% set n.l = [n.l] %}{% endfor %}", "it nests lists more than 50 deep"),
        (NS + "{% for i in range(20) %}{% set n.l = n.l + n.l %}{% endfor %}", "a list of more than 200,000 items"),
        ("{{ 'x'.center(10001) }}", "a width of more than 10,000"),
        ("{{ 10 ** 9999 }}", "a whole number of more than 3,000 digits"),
        ("{{ 'x' * 2000001 }}", "it builds a string of more than 2,000,000 characters"),
        ("{{ quotes }}", "it builds a string of more than 2,000,000 characters"),
    ],
)
def test_a_stop_is_told_with_its_reason(template, reason):
    content = compile_content("", "", template, limits=Limits(steps=10**9))

    with pytest.raises(TemplateProblem) as caught:
        content.render({"quotes": '"' * 500_000})

    assert caught.value.message.startswith("Stopped at line 1 of the HTML: ")
    assert reason in caught.value.message


def test_all_parts_of_a_rendering_share_its_steps():
    source = "{% for i in range(30) %}{{ i }}{% endfor %}"
    limits = Limits(steps=100)

    compile_content("", source, "", limits=limits).render({})
    with pytest.raises(TemplateProblem) as caught:
        compile_content("", source, source, limits=limits).render({})

    assert caught.value.part == "html"


def test_a_rendering_leaves_nothing_behind_for_the_next():
    content = compile_content("", "{% for i in range(n) %}{{ i }}{% endfor %}", "", limits=Limits(steps=100))

    with pytest.raises(TemplateProblem):
        content.render({"n": 1000})
    texts = [content.render({"n": 20}).text for _ in range(20)]

    assert set(texts) == {"".join(map(str, range(20)))}


def test_a_large_but_honest_message_is_rendered():
    rows = [{"name": f"Item {n}", "price": n / 4, "tags": ["a", "b"]} for n in range(1000)]
    html = (
        "<table>{% for row in rows %}<tr class='{{ loop.cycle('odd', 'even') }}'><td>{{ row.name|upper }}</td>"
        "<td>{{ '%.2f' % row.price }}</td><td>{{ row.tags|join(', ') }}</td></tr>{% endfor %}</table>"
        "{{ rows|sum(attribute='price') }}"
    )

    mail = compile_content("", "", html).render({"rows": rows})

    assert mail.html.count("<tr") == 1000
    assert mail.html.endswith("124875.0")


def test_threads_may_share_a_content():
    content = compile_content("{{ n }}", "{% for i in range(300) %}{{ n }}{{ i }}{% endfor %}", "<p>{{ n|upper }}</p>")
    expected = {n: content.render({"n": n}) for n in "abcd"}
    wrong = []

    def work(n):
        wrong.extend(n for _ in range(50) if content.render({"n": n}) != expected[n])

    threads = [threading.Thread(target=work, args=(n,)) for n in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


# HTML to text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("", ""),
        ("<p>a\n  b</p><p>c</p>", "a b\n\nc\n"),
        ("<div>a</div><div>b</div>c<br>d<br><br>e", "a\nb\nc\nd\n\ne\n"),
        ("<h1>Title</h1>text <b>bold</b>, <i>it</i>", "Title\n\ntext bold, it\n"),
        ("&copy; a&nbsp;&amp; b &lt;c&gt;", "© a & b <c>\n"),
        ("<ul><li>a</li><li>b<ul><li>c</ul></ul>d", "- a\n- b\n  - c\n\nd\n"),
        ("<ol><li>a<li>b</ol><ul><li><p>c</p></ul>", "1. a\n2. b\n\n- c\n"),
        ("<a href='https://x.example/?a=1&section=2&amp;b=3'>go</a>", "go <https://x.example/?a=1&section=2&b=3>\n"),
        ("<a href='https://x.example/'> https://x.example/ </a>.", "https://x.example/ .\n"),
        ("<a href='mailto:a@x.example'>a@x.example</a> <a href='#top'>up</a>", "a@x.example up\n"),
        ("<a href='u'><img src='x' alt='Logo'></a>", "Logo <u>\n"),
        ("<a href='u'><img src='x'></a>", "<u>\n"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>d", "a  b\nc\n\nd\n"),
        ("a<hr>b", "a\n\n" + "-" * 40 + "\n\nb\n"),
        ("<blockquote>a<br>b</blockquote>c", "> a\n> b\n\nc\n"),
        ("<p>a</p><pre>\nx = 1\n   y\n</pre>b", "a\n\nx = 1\n   y\n\nb\n"),
        ("<head><title>t</title><style>a{}</style></head><body>b<script>c()</script><!-- d --></body>", "b\n"),
        ("{{ a }} {{- b -}} c", "{{ a }}{{ b }}c\n"),
        ("<p>{# note #}{{ '}}<b>' }}</p>", "{{ '}}<b>' }}\n"),
        ("<p>x</p>{% if a %}<p>A</p>{% else %}<p>B</p>{% endif %}<p>y</p>",
         "x\n\n{% if a %}A\n\n{% else %}B\n\n{% endif %}y\n"),
        ("<p>Hi{% if a %} {{ a }}{% endif %},</p>", "Hi{% if a %} {{ a }}{% endif %},\n"),
        ("<ul>\n{%- for i in l -%}\n<li>{{ i }}</li>\n{%- endfor -%}\n</ul>\n<p>end</p>",
         "{% for i in l %}- {{ i }}\n{% endfor %}\nend\n"),
        ("<ol>{% for i in l %}<li>{% if i %}a{% else %}b{% endif %}</li>{% endfor %}</ol>",
         "{% for i in l %}{{ loop.index }}. {% if i %}a{% else %}b{% endif %}\n{% endfor %}\n"),
        ("<table>{% for r in l %}<tr {% if r %}class='x'{% endif %}>{% for c in r %}<td>{{ c }}</td>{% endfor %}</tr>"
         "{% endfor %}</table>",
         "{% for r in l %}{% for c in r %}{{ c }}  {% endfor %}\n{% endfor %}\n"),
        ("<a {% if p %}href='a'{% else %}href='b'{% endif %}>go</a>", "go <{% if p %}a{% else %}b{% endif %}>\n"),
        ("<style>{% set c = 'red' %}{% if d %}a{}{% endif %}</style>{{ c }}", "{% set c = 'red' %}{{ c }}\n"),
    ],
)  # fmt: skip
def test_html_reads_as_text(html, text):
    assert html_to_text_template(html).strip() == text.strip()


@pytest.mark.parametrize(
    "html",
    [
        "&#123;&#123; a }} &#123;% b %} &#123;# c #}",
        "{% raw %}{{ a }} {% b %} {# c #}{% endraw %}",
        "&#123;{% if true %}{{ '%' }}{% endif %}",
        "&#123;{{ '{' }}",
    ],
)
def test_text_that_looks_like_jinja_stays_text(html):
    as_html = compile_content("", "", html.replace("&#123;", "{{ '{' }}")).render({}).html

    assert rendered(html_to_text_template(html)).strip() == as_html.strip()


def test_a_value_is_not_escaped_in_the_text():
    assert rendered(html_to_text_template("<p>{{ a }}</p>"), a="<&>") == "<&>\n"


@pytest.mark.parametrize("html", ["<p>{% if a %}</p>", "{{ a", "{{ a|nofilter }}"])
def test_html_that_does_not_compile_is_told_as_such(html):
    with pytest.raises(TemplateProblem) as caught:
        html_to_text_template(html)

    assert caught.value.part == "html"


def test_html_whose_tags_cross_those_of_jinja_is_told_as_such():
    with pytest.raises(TemplateProblem, match="write the text"):
        html_to_text_template("<a {% if p %}href='a'>x{% else %}href='b'>x{% endif %}</a>")


LINKS = st.sampled_from(["https://x.example/?a=1&copy=2&b={{ a }}", "{{ u }}", "https://y.example/%7Bz"])
INLINE = st.one_of(
    st.sampled_from(
        ["word ", " two\n words", "{{ a }}", "{{- a -}}", "&amp;&#123;&#123;", "<br>", "<img alt='{{ a }}'>"]
    ),
    LINKS.map("<a href='{}'>go <b>on</b></a>".format),
)
HTML = st.recursive(
    st.lists(INLINE, min_size=1, max_size=4).map("".join),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.tuples(st.sampled_from(["p", "div", "ul", "ol", "li", "tr", "td", "table", "blockquote", "pre"]), inner).map(
            lambda t: f"<{t[0]}>{t[1]}</{t[0]}>"
        ),
        inner.map(lambda html: f"{{% for i in l %}}{html}{{% endfor %}}"),
        inner.map(lambda html: f"{{% if c -%}} {html} {{%- else %}}{html}{{% endif %}}"),
        inner.map(lambda html: f"<li {{% if c %}}class='{{{{ a }}}}'{{% endif %}}>{html}</li>"),
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None, print_blob=True)
@given(HTML, st.booleans())
def test_text_made_of_html_compiles_and_has_every_link_that_is_shown(html, c):
    text = html_to_text_template(html)
    note(text)
    data = {"a": "A", "u": "https://u.example/", "l": [1, 2], "c": c}

    shown = compile_content("", text, html).render(data)

    assert compile_content("", text, "").variables <= compile_content("", "", html).variables
    for target in ("https://x.example/?a=1&copy=2&b=A", "https://u.example/", "https://y.example/%7Bz"):
        assert shown.text.count(f"<{target}>") == shown.html.count(f"<a href='{target}'>")
    assert shown.text.count("word") == shown.html.count("word")


def test_a_null_of_the_data_is_written_as_nothing():
    content = compile_content("{{ name }}!", "Dear {{ name or 'friend' }}", "<p>{{ name }}</p>")

    rendered = content.render({"name": None})

    assert (rendered.subject, rendered.text, rendered.html) == ("!", "Dear friend", "<p></p>")
