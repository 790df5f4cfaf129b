"""A proxy as one would write it with aiohttp: ``python -m … PORT CHAMPION CHALLENGER``."""

import sys

from tests.bench_router.peers import Place
from tests.bench_router.processes import Running, free_port, pypi


def start(place: Place) -> Running:
    """The proxy."""
    pypi("aiohttp", "aiohttp")
    port = free_port()
    command = [sys.executable, "-m", __name__, str(port), place.champion, place.challenger]
    return Running(command, place.cores, port, place.directory / "aiohttp.log")


def main(port: int, champion: str, challenger: str) -> None:
    import aiohttp
    from aiohttp import web

    from router.assignment import assign

    async def invoke(request: web.Request) -> web.Response:
        arm = assign("s/1", request.headers["x-user-id"], 500, 10_000).arm
        address = challenger if arm == "challenger" else champion
        headers = {"content-type": request.headers["content-type"], "x-user-id": request.headers["x-user-id"]}
        async with request.app["client"].post(
            f"http://{address}{request.path_qs}", data=await request.read(), headers=headers
        ) as answer:
            body = await answer.read()
            return web.Response(status=answer.status, body=body, content_type=answer.content_type)

    async def client(app: web.Application):  # type: ignore[no-untyped-def]  # an async generator of aiohttp's
        app["client"] = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        yield
        await app["client"].close()

    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/{path:.*}", invoke)
    app.cleanup_ctx.append(client)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
