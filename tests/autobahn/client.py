"""One fuzzing client: runs cases of the suite, one after the other, against one server.

`client.py FOLDER --list` writes the cases as JSON; `client.py FOLDER ws://HOST:PORT/` takes the number of a case from
each line of standard input, runs it, and writes what came of it as a line of JSON on standard output.

FOLDER has the cases as `translate.py` writes them. Here is what the suite's `fuzzing.py` is to them: the protocol
they send with and are told by, on the same library. What a case thinks of a server, it decides itself.
"""

import json
import sys
import time

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol, connectWS
from twisted.internet import reactor
from twisted.python import log

from python2 import to_bytes, to_text

sys.path.append(sys.argv[1])

import all_cases  # noqa: E402 (it is where the first argument says)

CASES = {case.__name__.removeprefix("Case").replace("_", "."): case for case in all_cases.Cases}

# From these groups on the payloads are bytes in the cases, too.
FIRST_GROUP_OF_BYTES = 12

# So much of the conversation is kept for whoever has to find out why a case failed.
FRAMES_KEPT = 100
OCTETS_KEPT = 64


class Client(WebSocketClientProtocol):
    """The protocol as the cases know it (`self.p` in them)."""

    connectionWasOpen = False
    createWirelog = True

    def __init__(self, name, factory):
        super().__init__()
        self.factory = factory
        self.name = name
        self.is_bytes = int(name.split(".")[0]) >= FIRST_GROUP_OF_BYTES
        self.started = time.monotonic()
        self.frames = []
        self.txFrameStats = {}
        self.runCase = CASES[name](self)

    # What a case sends.

    def sendFrame(self, opcode, payload=b"", payload_len=None, **how):
        payload = to_bytes(payload)
        if payload_len is not None and payload:
            # The library divides with `/` for this, which gives no whole number in Python 3.
            payload = (payload * (payload_len // len(payload) + 1))[:payload_len]
        super().sendFrame(opcode, payload=payload, **how)

    def sendMessage(self, payload, isBinary=False, **how):
        super().sendMessage(to_bytes(payload), isBinary, **how)

    def sendMessageFrameData(self, payload, sync=False):
        return super().sendMessageFrameData(to_bytes(payload), sync)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        super().sendCloseFrame(code, to_bytes(reasonUtf8), isReply)

    # What a case wants to happen later, if the connection is still there then.

    def later(self, seconds, what):
        reactor.callLater(seconds, lambda: self.state != self.STATE_CLOSED and what())

    def continueLater(self, seconds, what, tag=None):
        self.later(seconds, what)

    def killAfter(self, seconds):
        self.later(seconds, self.failConnection)

    def closeAfter(self, seconds):
        self.later(seconds, self.sendClose)

    # What a case is told.

    def onOpen(self):
        self.connectionWasOpen = True
        self.runCase.onOpen()

    def onMessage(self, payload, isBinary):
        self.runCase.onMessage(bytes(payload) if self.is_bytes else to_text(payload), isBinary)

    def onPong(self, payload):
        self.runCase.onPong(to_text(payload))

    def onClose(self, wasClean, code, reason):
        self.runCase.onClose(wasClean, code, reason)

    def connectionLost(self, reason):
        super().connectionLost(reason)
        self.runCase.onConnectionLost(self.failedByMe)
        self.factory.has_run(self)

    # What is kept of the conversation.

    def enableWirelog(self, is_on):
        self.createWirelog = is_on

    def logRxFrame(self, header, payload):
        self.keep("<", header, payload)

    def logTxFrame(self, header, payload, repeatLength, chopsize, sync):
        self.txFrameStats[header.opcode] = self.txFrameStats.get(header.opcode, 0) + 1
        self.keep(">", header, [payload])

    def keep(self, direction, header, payload):
        if self.createWirelog and len(self.frames) < FRAMES_KEPT:
            start = b"".join(payload)[:OCTETS_KEPT]
            bits = f"fin={int(header.fin)} rsv={header.rsv} opcode={header.opcode} length={header.length}"
            self.frames.append(f"{direction} {bits} {start!r}")

    def result(self):
        case = self.runCase
        return {
            "case": self.name,
            "behavior": case.behavior,
            "close": case.behaviorClose,
            "result": case.result,
            "result_close": case.resultClose,
            "close_code": self.remoteCloseCode,
            "close_reason": str(self.remoteCloseReason or ""),
            "unclean": str(self.wasNotCleanReason or ""),
            "seconds": round(time.monotonic() - self.started, 3),
            "frames": self.frames,
        }


class Clients(WebSocketClientFactory):
    """Connects once for each case that it is asked for."""

    def __init__(self, url):
        super().__init__(url, useragent="pousse's Autobahn")
        self.logFrames = True
        # As the suite does: a server that fails is told so by a close frame.
        self.setProtocolOptions(failByDrop=False)
        self.name = sys.stdin.readline().strip()
        if self.name:
            connectWS(self)
        else:
            reactor.callWhenRunning(reactor.stop)

    def buildProtocol(self, address):
        return Client(self.name, self)

    def has_run(self, client):
        print(json.dumps(client.result()), flush=True)

    def clientConnectionLost(self, connector, reason):
        # Nothing else is under way, so the wait for the next line holds up nobody.
        self.name = sys.stdin.readline().strip()
        if self.name:
            connector.connect()
        else:
            reactor.stop()

    def clientConnectionFailed(self, connector, reason):
        print(f"no connection: {reason.getErrorMessage()}", file=sys.stderr, flush=True)
        reactor.stop()


if sys.argv[2] == "--list":
    cases = {name: {"description": " ".join(case.DESCRIPTION.split("<br>")[0].split()),
                    "expectation": " ".join(case.EXPECTATION.split())} for name, case in CASES.items()}
    print(json.dumps({"cases": cases, "groups": all_cases.CaseCategories}))
else:
    # A case that breaks is told there.
    log.startLogging(sys.stderr, setStdout=False)
    clients = Clients(sys.argv[2])
    reactor.run()
