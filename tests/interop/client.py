"""Conversations of the PyPI package `websockets` with pousse: `client.py CONVERSATION URL [CERTIFICATE]`.

Writes what it saw, a line at a time; `client.mjs` has to write the same. `tests/interop.rs` starts the servers, reads
the lines, and knows what has to stand in them.
"""

import asyncio
import json
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

URL = sys.argv[2]
MIB = 1024 * 1024


def say(*words):
    print(*words, flush=True)


def to(path="/websocket", **how):
    """No pings of its own and no limits, and no proxy between it and this machine."""
    return connect(URL + path, max_size=None, ping_interval=None, proxy=None, **how)


async def comes_back(socket, message, expected=None):
    await socket.send(message)
    received = await socket.recv()
    wanted = message if expected is None else expected
    assert received == wanted, f"{len(received)} of {len(wanted)} came back: {received[:100]!r}"


def say_close(socket):
    close = socket.protocol.close_rcvd
    say(close.code, close.reason) if close else say("no close frame")


async def ended(socket):
    """Reads until the server closes, and tells how it did."""
    try:
        while True:
            await socket.recv()
    except ConnectionClosed:
        say_close(socket)


async def messages():
    async with to() as socket:
        names = [extension.name for extension in socket.protocol.extensions]
        say("extensions:", *names)
        for message in ["Bonjour", "", "caffè ☕ " * 500, b"", bytes(range(256)) * 40]:
            await comes_back(socket, message)
        say("messages came back")
        await comes_back(socket, ["Bon", "", "jour"], "Bonjour")
        await comes_back(socket, ["☕" * 1000, "à" * 1000], "☕" * 1000 + "à" * 1000)
        await comes_back(socket, [b"\0" * 5000, b"\xff" * 5000], b"\0" * 5000 + b"\xff" * 5000)
        say("fragments came back")
        await comes_back(socket, "0123456789abcdef" * (MIB // 16))
        await comes_back(socket, bytes(at * at % 251 for at in range(MIB)))
        say("1 MiB came back")


async def closes():
    for code, reason in [(1000, ""), (1000, "adieu"), (3000, "à bientôt"), (4999, "x" * 123)]:
        socket = await to()
        await comes_back(socket, "Bonjour")
        await socket.close(code, reason)
        say_close(socket)


async def too_big():
    async with to() as socket:
        await comes_back(socket, "x" * 65_536)
        say("64 KiB came back")
        await socket.send("x" * 65_537)
        await ended(socket)


async def broken():
    opcode_that_is_reserved, text_that_is_not_utf8 = b"\x83\x80\0\0\0\0", b"\x81\x81\0\0\0\0\xff"
    for frame in [opcode_that_is_reserved, text_that_is_not_utf8]:
        async with to() as socket:
            await comes_back(socket, "Bonjour")
            socket.transport.write(frame)
            await ended(socket)


async def waits_for_the_end():
    async with to() as socket:
        say("ready")
        await ended(socket)


async def pings():
    async with to(subprotocols=["pousse.v1"]) as socket:
        answered = await socket.ping(b"are you there?")
        await answered
        say("pong")
        hello = json.loads(await socket.recv())["hello"]
        # It stands beside each ping of the server; a second one means that the first was answered.
        for _ in range(2):
            assert json.loads(await socket.recv()) == {"last": hello["last"]}
        say("two pings of the server")


async def command(socket, **fields):
    await socket.send(json.dumps(fields))
    return json.loads(await socket.recv())


async def resumes():
    one = await to(subprotocols=["other.v9", "pousse.v1"])
    say("subprotocol:", one.subprotocol)
    hello = json.loads(await one.recv())["hello"]
    subscribed = await command(one, subscribe="tea")
    assert subscribed == {"subscribed": "tea", "last": hello["last"], "readers": 1}, subscribed
    await one.send(json.dumps({"publish": "tea", "data": "first"}))
    last = next(it["id"] for it in [json.loads(await one.recv()) for _ in range(2)] if "id" in it)
    one.transport.abort()

    async with to(subprotocols=["pousse.v1"]) as other:
        await other.recv()
        for data in ["second", "thïrd"]:
            assert "published" in await command(other, publish="tea", data=data)

    async with to(subprotocols=["pousse.v1"]) as again:
        await again.recv()
        await again.send(json.dumps({"subscribe": "tea", "after": last}))
        missed = [json.loads(await again.recv()) for _ in range(3)]
        say("missed:", *(it["data"] for it in missed[:2]))
        say("subscribed:", missed[2]["subscribed"])
        await again.send(b"\0")
        await ended(again)


async def refused():
    try:
        async with to(subprotocols=["other.v9"]):
            say("it was let in")
    except InvalidStatus as error:
        say("status:", error.response.status_code)


async def secure():
    trust = ssl.create_default_context(cafile=sys.argv[3])
    async with to(ssl=trust) as socket:
        await comes_back(socket, "Bonjour" * 1000)
        say("came back over", socket.transport.get_extra_info("ssl_object").version())
    try:
        async with to(ssl=ssl.create_default_context()):
            say("it trusts anyone")
    except ssl.SSLCertVerificationError:
        say("does not trust it unasked")


asyncio.run(globals()[sys.argv[1]]())
