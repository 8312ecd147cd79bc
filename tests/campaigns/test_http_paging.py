"""A list of pages is read whole, in order and once, whichever way it is paged; one that never ends is an error."""

import json
from collections.abc import Callable
from urllib.parse import urlencode

import pytest

from campaigns.audiences.exceptions import AudienceRefused
from campaigns.audiences.http_paging import Page, Paging, PagingProblem, Style, Walk
from campaigns.audiences.http_url import LeadsElsewhere, followed, with_parameters
from tests.campaigns.list_api import PAGE, addresses, api, asked, people, source
from tests.delivery.http_server import Received, answer

pytestmark = pytest.mark.once

COUNT = 8  # people: two whole pages and a part of one
Respond = Callable[[Received], bytes]


def numbered(request: Received) -> bytes:
    number = int(asked(request)["page"])
    return answer(200, people(COUNT)[(number - 1) * PAGE : number * PAGE])


def offsets(request: Received) -> bytes:
    offset = int(asked(request)["offset"])
    return answer(200, {"data": {"items": people(COUNT)[offset : offset + PAGE]}})


def cursor_of(offset: int) -> str | None:
    return f"a+b/c=&%{offset} ü" if offset < COUNT else None


def cursors(request: Received) -> bytes:
    cursor = asked(request).get("after")
    offset = next(n for n in range(COUNT + 1) if (n == 0 and cursor is None) or cursor == cursor_of(n))
    page = {"rows": people(COUNT)[offset : offset + PAGE], "meta": {"next": cursor_of(offset + PAGE)}}
    return answer(200, page)


def header_links(request: Received) -> bytes:
    offset = int(asked(request).get("from", 0))
    links = ['</?from=0>; rel="first"; title="a, <b>"']
    if offset + PAGE < COUNT:
        links.append(f'</list?{urlencode({"from": offset + PAGE, "team": "a&b"})}>; title="x"; rel="last next"')
    return answer(200, people(COUNT)[offset : offset + PAGE], Link=", ".join(links))


def body_links(request: Received) -> bytes:
    offset = int(asked(request).get("from", 0))
    page: dict[str, object] = {"value": people(COUNT)[offset : offset + PAGE]}
    if offset + PAGE < COUNT:
        page["@odata.nextLink"] = f"http://{request.headers['host'].upper()}/list?from={offset + PAGE}#here"
    return answer(200, page)


WAYS: dict[str, tuple[Respond, dict[str, object], list[str]]] = {
    "page": (
        numbered,
        {"paging": "page", "page_parameter": "page", "size_parameter": "per_page", "page_size": PAGE},
        [f"/list?per_page=3&page={n}" for n in (1, 2, 3, 4)],
    ),
    "offset": (
        offsets,
        {"paging": "offset", "page_parameter": "offset", "items": "data.items"},
        [f"/list?offset={n}" for n in (0, 3, 6, 8)],
    ),
    "cursor": (
        cursors,
        {"paging": "cursor", "page_parameter": "after", "next_path": "meta.next", "items": "rows"},
        ["/list", "/list?after=a%2Bb/c%3D%26%253%20%C3%BC", "/list?after=a%2Bb/c%3D%26%256%20%C3%BC"],
    ),
    "link_header": (
        header_links,
        {"paging": "link_header"},
        ["/list", "/list?from=3&team=a%26b", "/list?from=6&team=a%26b"],
    ),
    "link_body": (
        body_links,
        {"paging": "link_body", "next_path": '["@odata.nextLink"]', "items": "value"},
        ["/list", "/list?from=3", "/list?from=6"],
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_paging_reads_everybody_once_and_asks_for_no_page_twice(way):
    respond, options, targets = WAYS[way]

    with api(respond) as server:
        rows = list(source(f"{server.url}list", **options).rows())

    assert [(row.position, row.address) for row in rows] == list(enumerate(addresses(COUNT), 1))
    assert [request.target for request in server.received] == targets


@pytest.mark.parametrize("way", WAYS)
def test_every_page_is_asked_for_on_one_connection(way):
    respond, options, _ = WAYS[way]

    with api(respond) as server:
        list(source(f"{server.url}list", **options).rows())

    assert server.connections == 1


def test_pages_are_counted_from_the_number_that_is_set():
    def from_zero(request: Received) -> bytes:
        number = int(asked(request)["p"])
        return answer(200, people(COUNT)[number * PAGE : (number + 1) * PAGE])

    with api(from_zero) as server:
        rows = list(source(server.url, paging="page", page_parameter="p", first_page=0).rows())

    assert [row.address for row in rows] == addresses(COUNT)


def test_without_paging_one_page_is_the_list_whatever_it_says_comes_next():
    with api(header_links) as server:
        rows = list(source(server.url).rows())

    assert [row.address for row in rows] == addresses(PAGE)
    assert len(server.received) == 1


def test_what_else_is_asked_for_goes_with_every_page():
    with api(numbered) as server:
        url = f"{server.url}?team=a%2Fb&page=77"
        list(source(url, paging="page", page_parameter="page", parameters="status = active\nq=x=1").rows())

    queries = [asked(request) for request in server.received]
    assert queries == [{"team": "a/b", "status": "active", "q": "x=1", "page": str(n)} for n in (1, 2, 3, 4)]


def test_several_link_headers_are_read_as_one():
    def two(request: Received) -> bytes:
        if "more" in asked(request):
            return answer(200, people(1, start=2))
        lines = b'HTTP/1.1 200 OK\r\nLink: </?more=1>; rel=next\r\nlink: </>; rel="prev"\r\n'
        body = json.dumps(people(1)).encode()
        return lines + b"Content-Length: %d\r\n\r\n" % len(body) + body

    with api(two) as server:
        rows = list(source(server.url, paging="link_header").rows())

    assert [row.address for row in rows] == addresses(2)


def test_an_empty_page_in_between_is_not_the_end_where_the_page_says_what_comes_next():
    pages = {None: ([], "a"), "a": (people(2), "b"), "b": ([], "c"), "c": (people(1, start=3), None)}

    def respond(request: Received) -> bytes:
        items, following = pages[asked(request).get("c")]
        return answer(200, {"data": items, "next": following})

    with api(respond) as server:
        options = {"paging": "cursor", "page_parameter": "c", "next_path": "next", "items": "data"}
        rows = list(source(server.url, **options).rows())

    assert [row.address for row in rows] == addresses(3)


def test_an_empty_page_with_the_same_cursor_again_is_the_end():
    def respond(request: Received) -> bytes:
        done = asked(request).get("c") == "end"
        return answer(200, {"data": [] if done else people(2), "next": "end"})

    with api(respond) as server:
        options = {"paging": "cursor", "page_parameter": "c", "next_path": "next", "items": "data"}
        rows = list(source(server.url, **options).rows())

    assert [row.address for row in rows] == addresses(2)
    assert len(server.received) == 2


def test_the_last_item_can_be_the_cursor():
    def respond(request: Received) -> bytes:
        after = int(asked(request).get("after", 0))
        return answer(200, {"data": people(COUNT)[after : after + PAGE]})

    with api(respond) as server:
        options = {"paging": "cursor", "page_parameter": "after", "next_path": "data[-1].id", "items": "data"}
        rows = list(source(server.url, **options).rows())

    assert [row.address for row in rows] == addresses(COUNT)


# --- Lists that do not end, or lead elsewhere -------------------------------------------------------------------------


def refusal(server_url: str, **options: object) -> AudienceRefused:
    with pytest.raises(AudienceRefused) as refused:
        list(source(server_url, **options).rows())
    return refused.value


def test_a_cursor_that_comes_again_is_an_error_and_not_endless():
    def in_a_circle(request: Received) -> bytes:
        number = int(asked(request).get("c", 0))
        return answer(200, {"data": people(2, start=number * 2 + 1), "next": str((number + 1) % 3)})

    with api(in_a_circle) as server:
        options = {"paging": "cursor", "page_parameter": "c", "next_path": "next", "items": "data"}
        error = refusal(server.url, **options)

    assert str(error) == (
        f"the people ({server.url}), page 4: it says that the page after page 4 is one that was read before. The list "
        "goes in circles: see where a page says what comes next, or ask the API's operator."
    )
    assert len(server.received) == 4


def test_a_link_that_leads_back_to_the_first_page_is_an_error():
    with api(lambda request: answer(200, people(2), Link='</>; rel="next"')) as server:
        error = refusal(server.url, paging="link_header")

    assert "the page after page 1 is one that was read before" in str(error)
    assert len(server.received) == 1


@pytest.mark.parametrize("style", ["page", "offset"])
def test_an_api_that_ignores_the_parameter_is_found_out_at_its_second_page(style):
    with api(lambda request: answer(200, people(2))) as server:
        error = refusal(server.url, paging=style, page_parameter="page")

    assert "page 2 is the same as the page before it" in str(error)
    assert len(server.received) == 2


def test_a_list_that_never_ends_is_refused_after_the_pages_allowed():
    def endless(request: Received) -> bytes:
        number = int(asked(request)["page"])
        assert number < 100
        return answer(200, people(1, start=number))

    with api(endless) as server:
        error = refusal(server.url, paging="page", page_parameter="page", max_pages=20)

    assert "it has more than 20 pages" in str(error)
    assert len(server.received) == 20


def test_a_page_that_cannot_be_read_refuses_the_list_and_is_named():
    rows = []

    def second_is_broken(request: Received) -> bytes:
        return answer(200, people(2)) if asked(request)["page"] == "1" else answer(200, b"[{")

    with api(second_is_broken) as server, pytest.raises(AudienceRefused, match=", page 2: the answer is no JSON"):
        rows.extend(source(server.url, paging="page", page_parameter="page").rows())

    assert [row.address for row in rows] == addresses(2)


@pytest.mark.parametrize(
    "link",
    [
        "http://other.example/list",
        "//other.example/list",
        "https://127.0.0.1:{port}/list",
        "http://127.0.0.1:1/list",
        "http://127.0.0.1:{port}@other.example/list",
        "http://reader:pw@127.0.0.1:{port}/list",
        "http://127.0.0.1:{port}\\@other.example/",
        "ftp://127.0.0.1:{port}/",
        "file:///etc/passwd",
        "http://[::1",
        "http://127.0.0.1:{port}/a b",
        "/li\nst",
    ],
)
def test_a_link_to_anywhere_else_is_not_followed(link):
    told = {}

    with api(lambda request: answer(200, {"data": people(2), "next": told["link"]})) as server:
        told["link"] = link.replace("{port}", str(server.port))
        error = refusal(server.url, paging="link_body", next_path="next", items="data", auth="bearer",
                        credential="s3cret-t0ken")  # fmt: skip

    assert "the link to the next page" in str(error)
    assert len(server.received) == 1


@pytest.mark.parametrize("pointer", [{"a": 1}, ["x"], True, "\0", "x" * 9000])
@pytest.mark.parametrize("style", ["cursor", "link_body"])
def test_a_pointer_that_is_none_is_refused_in_a_sentence(style, pointer):
    with api(lambda request: answer(200, {"data": people(2), "next": pointer})) as server:
        error = refusal(server.url, paging=style, page_parameter="c", next_path="next", items="data")

    assert "next" in str(error)
    assert len(server.received) == 1


@pytest.mark.parametrize("pointer", [None, "", False])
def test_a_pointer_to_nothing_is_the_end(pointer):
    with api(lambda request: answer(200, {"data": people(2), "next": pointer})) as server:
        rows = list(source(server.url, paging="cursor", page_parameter="c", next_path="next", items="data").rows())

    assert len(rows) == 2


# --- URLs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "url"),
    [
        ("?page=2", "https://api.example/v1/people?page=2"),
        ("people/2", "https://api.example/v1/people/2"),
        ("/v2?x=1#part", "https://api.example/v2?x=1"),
        ("https://API.example:443/v1/people?page=2", "https://api.example/v1/people?page=2"),
        ("https://api.example./x", "https://api.example/x"),
    ],
)
def test_a_link_on_the_same_origin_is_followed_to_the_host_that_was_entered(link, url):
    assert followed("https://api.example/v1/people?page=1", link) == url


def test_the_message_about_a_link_elsewhere_shows_no_query_and_no_password():
    with pytest.raises(LeadsElsewhere) as elsewhere:
        followed("https://api.example/", "https://me:pw@evil.example/x?key=hidden")

    assert str(elsewhere.value) == "https://evil.example"


def test_a_parameter_takes_the_place_of_the_one_that_was_there_and_leaves_the_rest_as_written():
    url = "https://api.example/p?a=%2f&page=1&page=2&b=+x"

    assert (
        with_parameters(url, [("page", "3 4"), ("c", "ü&")])
        == "https://api.example/p?a=%2f&b=+x&page=3%204&c=%C3%BC%26"
    )


def test_the_same_items_on_pages_apart_are_no_circle():
    walk = Walk(Paging(Style.PAGE, parameter="page"), "https://api.example/p")
    walk.first()

    urls = [walk.after(Page("", {}, None, items)) for items in ([1], [2], [1], [2])]

    assert [url[-1] for url in urls] == ["2", "3", "4", "5"]
    with pytest.raises(PagingProblem):
        walk.after(Page("", {}, None, [2]))
