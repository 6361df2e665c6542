"""A real nginx for tests: files, redirects, compression, uploads, TLS, a Unix socket."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tests.services import Server, _pick_port, program

CONFIGURATION = """
{user}
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 256; }}
http {{
    access_log off;
    types {{ text/plain txt; application/json json; }}
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    gzip on;
    gzip_min_length 1;
    gzip_types text/plain;
    keepalive_requests {keepalive_requests};
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls_port} ssl http2;
        listen unix:{socket};
        root {files};
        location / {{ }}
        location /connection {{ return 200 "$connection $connection_requests $server_protocol"; }}
        location /echo {{ return 200 "$request_method $request_uri $http_x"; }}
        location /moved {{ return 301 /hello.txt; }}
        location /seen {{ return 303 /echo; }}
        location /gone {{ return 404 "nothing here"; }}
        location /empty {{ return 204; }}
        location /hints {{ add_header X-A 1; add_header X-A 2; return 200 ""; }}
        location /chunked {{ ssi on; ssi_types *; gzip off; alias {files}/; }}
        location /small {{ client_max_body_size 1k; dav_methods PUT; }}
        location /put {{ client_max_body_size 100m; dav_methods PUT DELETE; create_full_put_path on; }}
        location /private {{ auth_basic "private"; auth_basic_user_file {directory}/users; }}
    }}
}}
"""


class NginxServer(Server):
    """Serves `files`, and what the configuration above says; closes a connection after so many requests."""

    name = "nginx"

    def __init__(self, keepalive_requests: int = 1000) -> None:
        super().__init__()
        self.tls_port = 0
        self.files = self.directory / "files"
        (self.files / "private").mkdir(parents=True)
        (self.files / "hello.txt").write_bytes(b"Hello, world!\n" * 100)
        (self.files / "zeros").write_bytes(bytes(1 << 22))
        (self.files / "private" / "secret.txt").write_bytes(b"secret")
        (self.directory / "users").write_text("user:{PLAIN}pass word\n")
        self._keepalive_requests = keepalive_requests

    def _pick_ports(self) -> None:
        self.port, self.tls_port = _pick_port(), _pick_port()

    def _command(self) -> Sequence[str]:
        configuration = self.directory / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(
                user="user root;" if os.geteuid() == 0 else "",  # who else could not enter a private directory
                directory=self.directory,
                files=self.files,
                port=self.port,
                tls_port=self.tls_port,
                socket=self.socket,
                certificate=self.certificates.certificate,
                key=self.certificates.key,
                keepalive_requests=self._keepalive_requests,
            )
        )
        return [program("nginx"), "-p", str(self.directory), "-c", str(configuration), "-e", "stderr"]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/empty", timeout=10) as answer:
                return bool(answer.status == 204)
        except OSError:
            return False

    def url(self, path: str = "/", *, tls: bool = False) -> str:
        scheme, port = ("https", self.tls_port) if tls else ("http", self.port)
        return f"{scheme}://{self.host}:{port}{path}"

    def file(self, name: str) -> Path:
        return self.files / name
