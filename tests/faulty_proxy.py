"""A proxy on loopback that passes HTTP on to a server, answers 500, hangs, or loses the answer."""

import threading
from collections.abc import Callable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FaultyProxy:
    """Treats a request by what `mode` says of its number: pass, error, hang or lose."""

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
        else:
            connection = HTTPConnection("127.0.0.1", self.proxy.target_port, timeout=60)
            connection.request(self.command, self.path, body, dict(self.headers))
            response = connection.getresponse()
            content = response.read()
            if mode == "lose":  # the server has done it, and nobody hears of it
                self.close_connection = True
                return
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in {"transfer-encoding", "content-length", "connection"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = answer

    def log_message(self, format: str, *args: object) -> None:
        pass
