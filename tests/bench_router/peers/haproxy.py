"""haproxy, split by a hash of the user."""

from tests.bench_router.peers import Place
from tests.bench_router.processes import Running, debian, free_port

_CONFIG = """
global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 60s
  http-reuse always
  retries 0
frontend users
  bind 127.0.0.1:{port}
  acl to_challenger req.hdr(x-user-id),xxh64,mod(10000) lt 500
  use_backend challenger if to_challenger
  default_backend champion
backend champion
  server champion {champion}
backend challenger
  server challenger {challenger}
"""


def start(place: Place) -> Running:
    """The proxy."""
    program = debian("haproxy", "haproxy")
    directory = place.directory / "haproxy"
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    path = directory / "haproxy.cfg"
    path.write_text(_CONFIG.format(port=port, champion=place.champion, challenger=place.challenger))
    return Running([program, "-db", "-f", str(path)], place.cores, port, directory / "log")
