"""A small S3 on loopback that answers as servers do with which something is wrong."""

import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REFUSALS = {  # name of the trouble -> (status, code, message)
    "bucket": (404, "NoSuchBucket", "The specified bucket does not exist"),
    "key": (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
    "secret": (403, "SignatureDoesNotMatch", "The request signature we calculated does not match"),
    "clock": (403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large"),
    "busy": (503, "SlowDown", "Please reduce your request rate."),
    "write": (403, "AccessDenied", "Access Denied"),
}


class SmallS3:
    """Keeps objects in memory. `trouble`: a key of REFUSALS; `length`, a server that refuses bodies with trailing
    checksums; `framed`, one that stores them with their framing; `html`, no S3 at all; None.
    """

    def __init__(self, trouble=None):
        self.trouble, self.objects, self.requests = trouble, {}, 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, method, path, query, headers, body):
        """(status, body) of a request."""
        self.requests += 1
        _, _, key = path.lstrip("/").partition("/")
        trailing = "x-amz-trailer" in {name.lower() for name in headers}
        if self.trouble == "html":
            return 200, b"<!doctype html><title>Pipelines</title>"
        if self.trouble in REFUSALS and (self.trouble != "write" or method == "PUT"):
            return refusal(*REFUSALS[self.trouble])
        if self.trouble == "length" and method == "PUT" and trailing:
            return refusal(411, "MissingContentLength", "")
        if method == "PUT":
            plain = trailing and self.trouble != "framed"
            self.objects[key] = unframed(body) if plain else body
            return 200, b""
        if method == "DELETE":
            self.objects.pop(key, None)
            return 204, b""
        if not key:
            return (
                200,
                b"" if method == "HEAD" else b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>",
            )
        return (200, self.objects[key]) if key in self.objects else refusal(404, "NoSuchKey", "")

    def _handler(store):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def date_time_string(self, timestamp=None):
                return format_datetime(datetime.now(UTC) + timedelta(hours=3), usegmt=True)

            def _handle(self):
                where = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if "chunked" in self.headers.get("Transfer-Encoding", ""):
                    body = self._chunks()
                status, data = store.answer(self.command, unquote(where.path), where.query, self.headers, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Last-Modified", self.date_time_string())
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def _chunks(self):
                data = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    data += self.rfile.read(size)
                    self.rfile.readline()
                while self.rfile.readline().strip():
                    pass
                return data

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

        return Handler


def refusal(status, code, message):
    """An error as S3 writes it."""
    return status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


def unframed(body):
    """The content of an aws-chunked body: chunks with their lengths in front, checksums behind."""
    data = b""
    while body:
        line, _, body = body.partition(b"\r\n")
        size = int(line.split(b";")[0], 16)
        if not size:
            break
        data, body = data + body[:size], body[size + 2 :]
    return data
