"""A proxy as one would write it with FastAPI and httpx: ``python -m … PORT CHAMPION CHALLENGER``."""

import contextlib
import sys
from collections.abc import AsyncIterator

from tests.bench_router.peers import Place
from tests.bench_router.processes import Running, free_port


def start(place: Place) -> Running:
    """The proxy."""
    port = free_port()
    command = [sys.executable, "-m", __name__, str(port), place.champion, place.challenger]
    return Running(command, place.cores, port, place.directory / "fastapi.log")


def main(port: int, champion: str, challenger: str) -> None:
    import fastapi
    import httpx
    import uvicorn

    from router.assignment import assign

    @contextlib.asynccontextmanager
    async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=30, trust_env=False) as client:
            app.state.client = client
            yield

    app = fastapi.FastAPI(lifespan=lifespan)

    @app.post("/{path:path}")
    async def invoke(request: fastapi.Request, path: str) -> fastapi.Response:
        arm = assign("s/1", request.headers["x-user-id"], 500, 10_000).arm
        address = challenger if arm == "challenger" else champion
        headers = {"content-type": request.headers["content-type"], "x-user-id": request.headers["x-user-id"]}
        answer = await request.app.state.client.post(
            f"http://{address}/{path}", content=await request.body(), headers=headers
        )
        return fastapi.Response(answer.content, answer.status_code, media_type=answer.headers["content-type"])

    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_level="error")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
