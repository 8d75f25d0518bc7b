"""What the cases of the suite use of Python 2's library, over strings whose characters are bytes.

In the cases `'\\xce\\xba'` are two bytes. Under Python 3 they are two characters, and stay so within a case: each
character is the byte of its number (latin-1). `client.py` makes them bytes where they leave for the protocol.
"""

import binascii as of_bytes
import importlib.util
import os
from types import SimpleNamespace

from autobahn.websocket import utf8validator


def to_bytes(text):
    return text.encode("latin-1") if isinstance(text, str) else text


def to_text(octets):
    return octets if isinstance(octets, str) else bytes(octets).decode("latin-1")


def hexlify(octets):
    return of_bytes.hexlify(to_bytes(octets)).decode("ascii")


binascii = SimpleNamespace(
    b2a_hex=hexlify,
    hexlify=hexlify,
    a2b_hex=lambda digits: to_text(of_bytes.unhexlify(digits)),
    unhexlify=lambda digits: to_text(of_bytes.unhexlify(digits)),
)


def package_folder(name):
    """Where a package is, without running it: the suite's own cannot be imported."""
    return os.path.dirname(importlib.util.find_spec(name).origin)


pkg_resources = SimpleNamespace(
    resource_filename=lambda package, name: os.path.join(package_folder(package), name)
)


class Utf8Validator:
    def __init__(self):
        self.of_bytes = utf8validator.Utf8Validator()

    def reset(self):
        self.of_bytes.reset()

    def validate(self, text):
        return self.of_bytes.validate(to_bytes(text))
