"""nginx as the other side of HTTP calls: it answers at once, and costs less than whatever calls it.

Started in a folder of its own, as an account without rights, and gone with the `with` block. Knows no client.
"""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.delivery.certificates import self_signed
from tests.servers import await_port, dying_with_parent, end, free_port, identity, unprivileged_account


class NginxUnavailable(RuntimeError):
    """nginx cannot run here; the message says what is missing."""


# A POST to a file is a 405 to nginx, which it may answer with the file.
_CONFIGURATION = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{ worker_connections 2048; }}
http {{
  access_log off; default_type application/json; root {folder}/answers;
  keepalive_requests 100000000; client_max_body_size 0;
  {temporary}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    listen 127.0.0.1:{tls_port} ssl http2 backlog=1024;
    ssl_certificate {certificate}; ssl_certificate_key {key};
    error_page 405 =200 $uri;
  }}
}}
"""
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Nginx:
    """Answers each path with a text, over plain HTTP on `port` and over TLS, HTTP/2 included, on `tls_port`.
    `certificate` is the file of its authority."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self.port, self.tls_port = free_port(), free_port()
        self.certificate = ""
        self._answers = answers

    def __enter__(self) -> Self:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if program is None:
            raise NginxUnavailable("There is no nginx here. On Debian: apt-get install nginx-light")
        account = unprivileged_account("nobody", "www-data")
        if account is None:
            raise NginxUnavailable("nginx is not run as root, and there is no account nobody")
        self._folder = Path(tempfile.mkdtemp(prefix="outreach-nginx-"))
        try:
            self._write()
            for path in (self._folder, *self._folder.rglob("*")):
                shutil.chown(path, account.pw_uid, account.pw_gid)
            self._process = subprocess.Popen(
                [program, "-e", "stderr", "-p", self._folder, "-c", self._folder / "nginx.conf"],
                cwd="/",
                preexec_fn=dying_with_parent(signal.SIGKILL),
                **identity(account),
            )
            await_port(self.port, self._process)
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        return self

    def _write(self) -> None:
        self.certificate, key = self_signed(self._folder, "127.0.0.1")
        for path, text in self._answers.items():
            file = self._folder / "answers" / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        temporary = " ".join(f"{name}_temp_path {self._folder}/{name};" for name in _TEMPORARY)
        text = _CONFIGURATION.format(
            folder=self._folder,
            port=self.port,
            tls_port=self.tls_port,
            certificate=self.certificate,
            key=key,
            temporary=temporary,
        )
        (self._folder / "nginx.conf").write_text(text)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        end(self._process, signal.SIGTERM)
        shutil.rmtree(self._folder)
