"""A Postmark on loopback, as far as `check` asks it: it knows one server token and one message stream.

In threads of its own, beside a test that waits for an answer of ours.
"""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "a-token-that-postmark-knows"
STREAM = "broadcast"


class Postmark:
    """`asked`: the paths of all questions so far. `meanwhile` is called while somebody waits for the answer."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.delivery_type = "Live"
        self.meanwhile: Callable[[], None] = lambda: None

    def answer(self, path: str, token: str | None) -> tuple[int, dict[str, object]]:
        self.asked.append(path)
        self.meanwhile()
        if token != TOKEN:
            return 401, {"ErrorCode": 10, "Message": f"No server has the token {token}."}
        if path == "/server":
            return 200, {"ID": 1, "DeliveryType": self.delivery_type}
        if path == f"/message-streams/{STREAM}":
            return 200, {"ID": STREAM, "MessageStreamType": "Broadcasts"}
        return 404, {"ErrorCode": 1226, "Message": "The stream does not exist."}


@contextlib.contextmanager
def serving() -> Iterator[Postmark]:
    """The server, for as long as the block lasts."""
    postmark = Postmark()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = postmark.answer(self.path, self.headers["X-Postmark-Server-Token"])
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        postmark.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield postmark
        finally:
            server.shutdown()
            thread.join()
