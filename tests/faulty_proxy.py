"""A proxy on loopback that passes HTTP on to a server, or gets in its way."""

import threading
from collections.abc import Callable, Mapping
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWERS: Mapping[str, tuple[int, Mapping[str, str], bytes]] = {
    "gateway": (502, {"Content-Type": "text/html"}, b"<html>Bad Gateway</html>"),
    "busy": (429, {"Retry-After": "3600"}, b"slow down"),
    "large": (413, {}, b"too large"),
    "login": (200, {"Content-Type": "text/html"}, b"<html>Please sign in</html>"),
    "empty": (200, {"Content-Type": "application/json"}, b""),
}


class FaultyProxy:
    """Treats a request by what `mode` says of its number.

    pass; error (500), gateway (502), busy (429, come back in an hour), login (200, a page to sign in), empty
    (200, nothing), large (413 to files) and hang, of which the server hears nothing; lose and cut, where only
    the answer suffers.
    """

    def __init__(self, port: int) -> None:
        self.target_port = port
        self.mode: Callable[[int], str] = lambda number: "pass"
        self.requests = 0
        self.released = threading.Event()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> "FaultyProxy":
        return self

    def __exit__(self, *error: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyProxy

    def answer(self) -> None:
        self.proxy.requests += 1
        mode = self.proxy.mode(self.proxy.requests)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if mode == "error":
            self.send_error(500, "the database is on fire")
        elif mode == "hang":
            self.proxy.released.wait(60)
        elif mode in ANSWERS and (mode != "large" or self.command == "PUT"):
            status, headers, content = ANSWERS[mode]
            self.answer_with(status, headers, content, len(content))
        else:
            connection = HTTPConnection("127.0.0.1", self.proxy.target_port, timeout=60)
            connection.request(self.command, self.path, body, dict(self.headers))
            response = connection.getresponse()
            content = response.read()
            if mode == "lose":  # the server has done it, and nobody hears of it
                self.close_connection = True
                return
            kept = {
                name: value
                for name, value in response.getheaders()
                if name.lower() not in {"transfer-encoding", "content-length", "connection"}
            }
            self.close_connection = mode == "cut"
            self.answer_with(response.status, kept, content, len(content) + 100 * (mode == "cut"))

    def answer_with(self, status: int, headers: Mapping[str, str], content: bytes, claimed: int) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(claimed)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = answer

    def log_message(self, format: str, *args: object) -> None:
        pass
