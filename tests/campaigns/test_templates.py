"""Saving a template: what makes a version, what never changes again, and what is refused."""

from itertools import chain

import pytest
from django.contrib.auth import get_user_model
from django.db.models import ProtectedError

from campaigns.authoring import save_version
from campaigns.models import Template, TemplateVersion
from delivery.templating import TemplateProblem, compile_content
from tests.campaigns import cast

HTML = '<h1>Dear {{ name }}</h1><p>Read <a href="https://example.test/{{ number }}">the news</a>.</p>'


def new_template(slug: str = "news") -> Template:
    return Template.objects.create(name=slug.title(), slug=slug)


def wordings(template: Template) -> list[tuple[int, str, str, str]]:
    return list(template.versions.order_by("number").values_list("number", "subject", "text", "html"))


@pytest.mark.django_db
def test_every_change_makes_a_version_and_leaves_the_earlier_ones_as_they_were():
    template = new_template()

    save_version(template, subject="One", text="first", html="")
    save_version(template, subject="Two", text="first", html="")
    save_version(template, subject="Two", text="second", html="")
    save_version(template, subject="Two", text="second", html="<p>second</p>")
    last = save_version(template, subject="One", text="first", html="")

    assert wordings(template) == [
        (1, "One", "first", ""),
        (2, "Two", "first", ""),
        (3, "Two", "second", ""),
        (4, "Two", "second", "<p>second</p>"),
        (5, "One", "first", ""),
    ]
    assert template.latest == last


@pytest.mark.django_db
def test_saving_the_same_words_again_makes_no_version():
    template = new_template()
    written = save_version(template, subject="One", text="", html=HTML)

    again = save_version(template, subject="One", text="", html=HTML)

    assert again == written
    assert template.versions.count() == 1


@pytest.mark.django_db
def test_versions_of_two_templates_are_numbered_apart():
    numbers = [
        save_version(template, subject=subject, text="text", html="").number
        for template in (new_template("a"), new_template("b"))
        for subject in ("One", "Two")
    ]

    assert numbers == [1, 2, 1, 2]


@pytest.mark.django_db
def test_a_template_without_a_version_has_no_latest():
    assert new_template().latest is None


@pytest.mark.django_db
def test_a_version_knows_who_made_it():
    author = get_user_model().objects.create_user("ada")

    version = save_version(new_template(), subject="One", text="text", html="", by=author)

    assert TemplateVersion.objects.get(pk=version.pk).created_by == author


@pytest.mark.django_db
def test_a_version_is_neither_changed_nor_deleted():
    version = save_version(new_template(), subject="One", text="text", html="")
    version.subject = "Another"

    with pytest.raises(TypeError, match="never changed"):
        version.save()
    with pytest.raises(TypeError, match="never deleted"):
        version.delete()

    assert wordings(version.template) == [(1, "One", "text", "")]


@pytest.mark.django_db
def test_a_template_with_versions_cannot_be_deleted():
    template = save_version(new_template(), subject="One", text="text", html="").template

    with pytest.raises(ProtectedError):
        template.delete()


@pytest.mark.django_db
def test_a_missing_text_is_made_from_the_html_and_renders_with_its_links():
    version = save_version(new_template(), subject="News", text=" \n", html=HTML)

    rendered = compile_content(version.subject, version.text, version.html).render({"name": "<Ada>", "number": 7})

    assert version.text_from_html
    assert "Dear <Ada>" in rendered.text
    assert "https://example.test/7" in rendered.text
    assert "<h1>" not in rendered.text


@pytest.mark.django_db
def test_the_author_s_own_text_is_kept_as_it_is():
    version = save_version(new_template(), subject="News", text="My own {{ name }}", html=HTML)

    assert (version.text, version.text_from_html) == ("My own {{ name }}", False)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("words", "part", "line"),
    [
        ({"subject": "Hello {{ name"}, "subject", 1),
        ({"text": "one\ntwo {% if name %}"}, "text", 2),
        ({"html": "<p>\n\n{{ name|shout }}</p>"}, "html", 3),
        # Without a text of its own the problem is still told as one of the HTML, which the author can mend.
        ({"text": "", "html": "<p>\n{% endfor %}</p>"}, "html", 2),
        ({"text": "{% include 'footer.txt' %}"}, "text", 1),
    ],
)
def test_a_problem_is_named_with_part_and_line_and_no_version_is_made(words, part, line):
    template = new_template()
    save_version(template, subject="Good", text="good", html="")

    with pytest.raises(TemplateProblem) as caught:
        save_version(template, **{"subject": "Hello", "text": "text", "html": ""} | words)

    assert (caught.value.part, caught.value.line) == (part, line)
    assert f"line {line}" in str(caught.value)
    assert wordings(template) == [(1, "Good", "good", "")]


@pytest.mark.django_db(transaction=True)
def test_authors_who_save_at_once_make_a_version_each():
    template = new_template()

    def save(author: int) -> list[int]:
        return [
            save_version(template, subject=f"{author} {change}", text="text", html="").number for change in range(5)
        ]

    numbers = cast.side_by_side(4, save)

    assert sorted(chain.from_iterable(numbers)) == list(range(1, 21))


@pytest.mark.django_db
def test_a_template_with_neither_text_nor_html_is_refused():
    with pytest.raises(TemplateProblem) as refused:
        save_version(new_template(), subject="Hello", text="  ", html="\n")

    assert refused.value.part == "text"
    assert "would be empty" in str(refused.value)
