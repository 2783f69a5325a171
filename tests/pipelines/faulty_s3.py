"""An HTTP link to an S3 server that refuses, drops or hides on request."""

import contextlib
import http.client
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class FaultyS3:
    """Forwards to `target`, unless a fault is set.

    down_until: until then (time.monotonic) every request gets 503. drop: the share of requests whose connection is cut.
    hide: a text; from the first request ("PUT /bucket/key") that has it on, 503 for `hide_s` seconds.
    """

    def __init__(self, target, seed=0):
        self.where = urlsplit(target)
        self.down_until, self.drop, self.hide, self.hide_s = 0.0, 0.0, "", 0.0
        self.refused, self.dropped, self.served = 0, 0, 0
        self.draw, self.lock = random.Random(seed), threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def verdict(self, request):
        """What happens to a request: `serve`, `refuse` or `drop`."""
        with self.lock:
            if self.hide and self.hide in request:
                self.hide, self.down_until = "", time.monotonic() + self.hide_s
            if time.monotonic() < self.down_until:
                self.refused += 1
                return "refuse"
            if self.draw.random() < self.drop:
                self.dropped += 1
                return "drop"
            self.served += 1
            return "serve"

    def _handler(faults):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def _body(self):
                if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                data = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    data += self.rfile.read(size)
                    self.rfile.readline()
                while self.rfile.readline().strip():  # trailers
                    pass
                return data

            def _handle(self):
                data = self._body()
                verdict = faults.verdict(f"{self.command} {self.path}")
                if verdict == "drop":
                    self.close_connection = True
                    with contextlib.suppress(OSError):
                        self.connection.shutdown(2)
                    return
                if verdict == "refuse":
                    self._reply(503, [("Content-Type", "application/xml")], b"<Error><Code>SlowDown</Code></Error>")
                    return
                link = http.client.HTTPConnection(faults.where.hostname, faults.where.port, timeout=60)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP}
                link.request(self.command, self.path, body=data or None, headers=headers)
                answer = link.getresponse()
                self._reply(answer.status, answer.getheaders(), answer.read())
                link.close()

            def _reply(self, code, headers, data):
                self.send_response_only(code)
                length = None
                for name, value in headers:
                    if name.lower() == "content-length":
                        length = value
                    elif name.lower() not in HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

        return Handler
