"""nginx with split_clients; and, as a server of one fixed answer, the fastest upstream there is."""

from pathlib import Path

from tests.bench_router.peers import Place
from tests.bench_router.processes import Running, debian, free_port

_FRAME = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  {content}
}}
"""
_SPLIT = """
  split_clients "s/1:$http_x_user_id" $arm {{ 5% challenger; * champion; }}
  upstream champion {{ server {champion}; keepalive 256; keepalive_requests 1000000000; }}
  upstream challenger {{ server {challenger}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ proxy_pass http://$arm; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
"""
ANSWER = '{"predictions": [0.5, 0.25], "model": "flight-delay", "version": "12", "padding": "0123456789abcdef"}'
_FIXED = """
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ default_type application/json; return 200 '{answer}'; }}
  }}
"""


def _run(directory: Path, cores: str, port: int, content: str) -> Running:
    program = debian("nginx", "nginx-light")
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "nginx.conf"
    path.write_text(_FRAME.format(directory=directory, content=content))
    return Running([program, "-e", f"{directory}/start.log", "-c", str(path)], cores, port, directory / "log")


def start(place: Place) -> Running:
    """The proxy."""
    port = free_port()
    content = _SPLIT.format(port=port, champion=place.champion, challenger=place.challenger)
    return _run(place.directory / "nginx", place.cores, port, content)


def fixed(directory: Path, cores: str) -> Running:
    """A server that says the same to everybody."""
    port = free_port()
    return _run(directory, cores, port, _FIXED.format(port=port, answer=ANSWER))
