"""An error tracker that speaks Sentry's protocol over HTTP and keeps what it is told; it misbehaves as it is told."""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FaultTracker:
    """`mode` is ok, refuse or hang; `bodies` are envelopes as they came, unpacked."""

    def __init__(self) -> None:
        self.mode = "ok"
        self.bodies: list[bytes] = []
        self.asked = 0
        self.dsn = ""
        self.come = threading.Condition()
        self.let_go = threading.Event()

    def events(self, count: int) -> list[dict[str, Any]]:
        """The events of all envelopes, once there are so many."""
        with self.come:
            assert self.come.wait_for(lambda: len(self.bodies) >= count, 60), self.bodies
            return [json.loads(body.split(b"\n")[2]) for body in self.bodies]


@contextmanager
def tracking() -> Iterator[FaultTracker]:
    """One that listens."""
    tracker = FaultTracker()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with tracker.come:
                tracker.asked += 1
                tracker.come.notify_all()
            if tracker.mode == "hang":
                tracker.let_go.wait(60)
            if tracker.mode == "ok":
                with tracker.come:
                    packed = self.headers.get("content-encoding") == "gzip"
                    tracker.bodies.append(gzip.decompress(body) if packed else body)
                    tracker.come.notify_all()
            self.send_response(200 if tracker.mode == "ok" else 503)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    tracker.dsn = f"http://0123456789abcdef@127.0.0.1:{server.server_port}/1"
    try:
        yield tracker
    finally:
        tracker.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join()
