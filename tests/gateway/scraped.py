"""What a Prometheus would say of the counters of a gateway, moved by hand: the HTTP API alone, for two selectors."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from controller.edges.gauges.prometheus import SCRAPED_S, Prometheus

SELECTOR = 'requests_total{arm="$arm"}'


class Scraped:
    """Counters by (arm, proxy, status), and when each proxy was scraped (µs). ``away``: no answer is to be had;
    ``error``: what is said then."""

    def __init__(self) -> None:
        self.error = {"errorType": "unavailable", "error": "down"}
        self.asked: list[str] = []
        self.counters: dict[tuple[str, str, str], int] = {}
        self.scrapes: dict[str, int] = {}
        self.away = False
        self._said: dict[tuple[str, str, str], int] = {}
        scraped = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                (query,) = parse_qs(urlsplit(self.path).query)["query"]
                body = json.dumps(scraped.answer(query)).encode()
                self.send_response(503 if scraped.away else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def prometheus(self) -> Prometheus:
        """One more who asks."""
        return Prometheus(f"http://127.0.0.1:{self._server.server_port}")

    def serve(self, proxy: str = "p", **requests: int) -> None:
        """Requests that ``proxy`` has answered: ``champion=5, challenger_500=1``."""
        for what, more in requests.items():
            arm, _, status = what.partition("_")
            key = arm, proxy, status or "200"
            self.counters[key] = self.counters.get(key, 0) + more

    def scrape(self, now: int, *proxies: str) -> None:
        """Look at ``proxies``, or at all."""
        for key, value in self.counters.items():
            if not proxies or key[1] in proxies:
                self._said[key], self.scrapes[key[1]] = value, now

    def restart(self, proxy: str) -> None:
        """It begins at 0 again."""
        self.counters = {key: 0 if key[1] == proxy else value for key, value in self.counters.items()}

    def answer(self, query: str) -> dict[str, Any]:
        self.asked.append(query)
        if self.away:
            return {"status": "error", **self.error}
        result = [
            {
                "metric": {"__name__": "requests_total", "arm": arm, "job": "g", "instance": proxy, "code": status},
                "values": [[self.scrapes[proxy] / 1e6, str(value)]],
            }
            for (arm, proxy, status), value in self._said.items()
            if query == f'requests_total{{arm="{arm}"}}\n[{SCRAPED_S}s]'
        ]
        return {"status": "success", "data": {"resultType": "matrix", "result": result}}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
