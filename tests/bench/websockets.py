"""Python's `websockets`: sends back on any path, to everyone on /broadcast.

PORT=9000 python tests/bench/websockets.py
"""

import asyncio
import os
import sys

# This file has the name of what it imports.
sys.path.pop(0)
from websockets.asyncio.server import broadcast, serve  # noqa: E402

everyone = set()


async def talk(socket):
    if socket.request.path != "/broadcast":
        async for message in socket:
            await socket.send(message)
        return
    everyone.add(socket)
    try:
        async for message in socket:
            broadcast(everyone, message)
    finally:
        everyone.remove(socket)


async def main():
    port = int(os.environ["PORT"])
    limits = {"compression": None, "max_size": 64 << 20, "backlog": 1024}
    async with serve(talk, "127.0.0.1", port, **limits) as server:
        await server.serve_forever()


asyncio.run(main())
