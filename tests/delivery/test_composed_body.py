"""Composed words as the body of a mail: plain text, and HTML in which nothing of them is markup."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.composed_body import tidy, to_html

pytestmark = pytest.mark.once


def test_paragraphs_and_line_ends_become_html():
    assert to_html("Hello Ann,\n\nhow are you?\nWell?\n\n\n\nBob\n") == (
        "<p>Hello Ann,</p>\n<p>how are you?<br>Well?</p>\n<p>Bob</p>"
    )


def test_nothing_in_the_words_is_markup_or_a_link():
    assert to_html("<b onclick='x'>5 > 3 & \"so\"</b> https://x.example") == (
        "<p>&lt;b onclick=&#x27;x&#x27;&gt;5 &gt; 3 &amp; &quot;so&quot;&lt;/b&gt; https://x.example</p>"
    )


def test_no_words_are_no_html():
    assert (to_html(""), to_html(" \n\n ")) == ("", "")


def test_line_ends_of_every_kind_become_plain_ones_and_what_no_database_keeps_goes():
    assert tidy("a\r\nb\rc\x0bd\u2029e\x85f\x00g\ud800h\u202ei") == "a\nb\nc\nd\ne\nf g hi"


def test_tidied_words_end_where_they_end_and_have_one_empty_line_in_a_row_at_most():
    assert tidy("\n\n  a  \n\n\n\n\tb \t\n \n\n c\n\n") == "a\n\n\tb\n\n c"


@given(st.text())
def test_what_is_tidy_stays_so_and_the_html_says_the_same_words(text):
    once = tidy(text)
    back = html.unescape(re.sub("<[^>]*>", "", to_html(text).replace("<br>", "\n").replace("</p>\n<p>", "\n\n")))

    assert tidy(once) == once
    assert "\n\n\n" not in once
    assert back == once


@given(st.text("<>&\"'abpr/ \n"))
def test_no_tag_of_the_words_survives(text):
    assert set(re.findall("<[^>]*>", to_html(text))) <= {"<p>", "</p>", "<br>"}
