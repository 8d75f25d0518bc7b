"""Writes the suite's cases once more, so that Python 3 can run them: `translate.py FOLDER`.

The suite is not forked: its cases are taken as installed from PyPI, and the changes below are all that is done to
them. Each has to apply somewhere, so that another release of the suite is noticed and not half translated. The cases
import each other by bare names; FOLDER on `sys.path` serves that, and `all_cases` is the package's `__init__`.
"""

import os
import re
import sys

from python2 import package_folder

CHANGES = [
    # The language.
    (r"(?m)^( +)print .*$", r"\1pass"),
    (r"\bxrange\(", "range("),
    (r"\bunichr\(", "chr("),
    (r"\(object, Case, \)", "(Case, )"),
    # A whole number of frames.
    (r"len\(self\.payload\) / self\.p\.autoFragmentSize", "len(self.payload) // self.p.autoFragmentSize"),
    # Two equal lists need not be pickled into equal bytes.
    (r"pickle\.dumps\(obj1\) == pickle\.dumps\(obj2\)", "obj1 == obj2"),
    # The library, over strings.
    (r"(?m)^import binascii$", "from python2 import binascii"),
    (r"(?m)^import copy, os, pkg_resources, hashlib, binascii$",
     "import copy, os, hashlib\nfrom python2 import binascii, pkg_resources"),
    (r"(?m)^from autobahn\.websocket\.utf8validator import Utf8Validator$", "from python2 import Utf8Validator"),
    # Not among the cases, and made for a Twisted of its time.
    (r"(?m)^from case9_9_1 import \*$", ""),
]
LEFT_OUT = ["case9_9_1.py"]


def main(folder):
    os.makedirs(folder, exist_ok=True)
    source = os.path.join(package_folder("autobahntestsuite"), "case")
    counts = [0] * len(CHANGES)
    for name in sorted(os.listdir(source)):
        if not name.endswith(".py") or name in LEFT_OUT:
            continue
        with open(os.path.join(source, name), encoding="latin-1") as file:
            text = file.read().expandtabs(8)
        for at, (pattern, replacement) in enumerate(CHANGES):
            text, count = re.subn(pattern, replacement, text)
            counts[at] += count
        name = "all_cases.py" if name == "__init__.py" else name
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)
    unused = [pattern for (pattern, _), count in zip(CHANGES, counts) if count == 0]
    if unused:
        sys.exit(f"this is not the suite that the changes were written for; they do not apply: {unused}")


main(sys.argv[1])
