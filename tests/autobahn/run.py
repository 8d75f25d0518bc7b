#!/usr/bin/env python3
"""Runs Autobahn's fuzzing client against pousse: all 517 cases, several at a time, and judges what comes of them.

Everything that is installed or written lies in target/autobahn, beside what cargo builds; only the summary goes into
docs/conformance.md. How the suite, written for Python 2, is made to run is told in README.md beside this file.
"""

import argparse
import collections
import difflib
import fnmatch
import hashlib
import json
import os
import pathlib
import queue
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or PROJECT / "target").resolve()
PLACE = TARGET / "autobahn"
PYTHON = PLACE / "venv" / "bin" / "python"
CASES = PLACE / "cases"
ECHO = TARGET / "release" / "examples" / "echo"
DOC = PROJECT / "docs" / "conformance.md"
BEGIN, END = "<!-- autobahn: written by `make autobahn` -->", "<!-- autobahn: end -->"

PYTHON_MIN = (3, 10)
CASES_OF_THE_SUITE = 517

# The suite bounds its slow cases at 480 s itself. Who says nothing for longer is not running any more.
CASE_SECONDS_MAX = 900

# NON-STRICT passes only where the case itself says that the stricter time of failing is not required.
OPTIONAL = "we expect the connection is failed at least then"

# How often it is said how far it has come.
PROGRESS_SECONDS = 60

# Beside the cases that ask for time, the client waits for the server and the server for the client.
JOBS = (os.cpu_count() or 1) + 1


def fail(text):
    sys.exit(f"autobahn: {text}")


def install():
    """The suite in a virtual environment, as the two requirement files pin it; once."""
    if sys.version_info < PYTHON_MIN:
        fail(f"Python is {sys.version.split()[0]} here, and the suite's packages want {PYTHON_MIN[0]}.{PYTHON_MIN[1]}")
    files = [HERE / "requirements-build.txt", HERE / "requirements.txt"]
    what = sys.version.encode() + b"".join(file.read_bytes() for file in [*files, HERE / "translate.py"])
    stamp, is_what = PLACE / "installed", hashlib.sha256(what).hexdigest()
    if stamp.exists() and stamp.read_text() == is_what:
        return
    try:
        import ensurepip  # noqa: F401 (Debian has it in a package of its own)
        import venv
    except ImportError:
        fail("this Python makes no virtual environments (Debian: apt-get install python3-venv)")
    print("autobahn: installing the suite from PyPI into", PLACE, flush=True)
    shutil.rmtree(PLACE, ignore_errors=True)
    venv.create(PYTHON.parent.parent, with_pip=True, symlinks=True)
    for file, flags in zip(files, [[], ["--no-build-isolation"]]):
        pip = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", *flags]
        run(pip + ["--requirement", file], f"pip could not install {file.name}; is PyPI within reach?")
    run([PYTHON, HERE / "translate.py", CASES], "the suite's cases could not be translated")
    stamp.write_text(is_what)


def run(command, if_not):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        fail(f"{if_not}\n{done.stdout[-4000:]}")
    return done.stdout


def start_echo(path, flags):
    """The server under test, on a port of its choosing. It ends with this program."""
    if not path.is_file():
        fail(f"no {path} here (cargo build --release --example echo)")
    echo = subprocess.Popen([path, "127.0.0.1:0", *flags], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    line = echo.stdout.readline()
    if "http://" not in line:
        fail(f"{path} does not listen: {line!r}")
    return echo, "ws://" + line.split("http://")[1].strip()


def number(name):
    return [int(part) for part in name.split(".")]


def slowest_first(name):
    """Compression takes nearly all of the time, and the longest messages in the smallest pieces most of it."""
    parts = number(name)
    return (-parts[-1], parts) if parts[0] >= 12 else (0, [-part for part in parts])


class Jobs:
    """So many clients at a time. Each is a process that takes the next case when it is done with one."""

    def __init__(self, url, names):
        self.url = url
        self.waiting = queue.SimpleQueue()
        for name in sorted(names, key=slowest_first):
            self.waiting.put(name)
        self.results = {}

    def run(self, count):
        # Daemons: who is interrupted does not wait for them. The clients end with their input.
        threads = [threading.Thread(target=self.work, args=[at], daemon=True) for at in range(count)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            next_word = time.monotonic() + PROGRESS_SECONDS
            for thread in threads:
                thread.join(max(0, next_word - time.monotonic()))
            if any(thread.is_alive() for thread in threads):
                print(f"autobahn: {len(self.results)} cases have run", flush=True)
        return self.results

    def work(self, at):
        client = None
        while True:
            try:
                name = self.waiting.get_nowait()
            except queue.Empty:
                break
            if client is None:
                client = self.start(at)
            line = self.ask(client, name)
            if line:
                self.results[name] = json.loads(line)
            else:
                client = client.kill()
                self.results[name] = {"case": name, "behavior": "NO RESULT", "close": "NO RESULT", "seconds": 0,
                                      "result": f"the client has died or hangs, see {PLACE}/client-{at}.log"}
        if client:
            client.stdin.close()
            client.wait()

    def start(self, at):
        with open(PLACE / f"client-{at}.log", "a") as log:
            return subprocess.Popen([PYTHON, HERE / "client.py", CASES, self.url], text=True,
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)

    def ask(self, client, name):
        bound = threading.Timer(CASE_SECONDS_MAX, client.kill)
        bound.start()
        try:
            print(name, file=client.stdin, flush=True)
            return client.stdout.readline()
        except BrokenPipeError:
            return ""
        finally:
            bound.cancel()


def passes(result, case):
    """Whether that is good enough, the closing handshake included."""
    good = ["OK", "INFORMATIONAL"] + (["NON-STRICT"] if OPTIONAL in case["expectation"] else [])
    return result["behavior"] in good and result["close"] in ("OK", "INFORMATIONAL")


def group(name):
    return name.split(".")[0]


def columns(results):
    first = ["OK", "NON-STRICT", "INFORMATIONAL"]
    return first + sorted({result["behavior"] for result in results.values()} - set(first))


def counts(results):
    """For each group, how often each verdict was given."""
    found = collections.defaultdict(collections.Counter)
    for name, result in results.items():
        found[group(name)][result["behavior"]] += 1
    return sorted(found.items(), key=lambda item: int(item[0]))


def table(results):
    heads = columns(results)
    print("group  cases " + "".join(f"{head:>15}" for head in heads) + "        seconds")
    for at, found in counts(results):
        seconds = sum(result["seconds"] for name, result in results.items() if group(name) == at)
        print(f"{at + '.*':<7}{found.total():>5} " + "".join(f"{found[head]:>15}" for head in heads) + f"{seconds:>15.1f}")
    total = collections.Counter(result["behavior"] for result in results.values())
    print(f"all    {total.total():>5} " + "".join(f"{total[head]:>15}" for head in heads))


def summary(results, suite):
    """What docs/conformance.md says of a whole run: nothing that differs from one good run to the next."""
    heads = columns(results)
    lines = [f"| group | what | cases | {' | '.join(heads)} |", "|---|---|---:|" + "---:|" * len(heads)]
    for at, found in counts(results):
        cells = [f"{at}.*", suite["groups"][at], found.total(), *(found[head] for head in heads)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    total = collections.Counter(result["behavior"] for result in results.values())
    lines.append("| " + " | ".join(map(str, ["all", "", total.total(), *(total[head] for head in heads)])) + " |")
    closes = collections.Counter(result["close"] for result in results.values())
    lines += ["", "- Closing handshakes: " + ", ".join(f"{closes[it]} {it}" for it in sorted(closes)) + "."]
    verdicts = collections.defaultdict(list)
    for name in sorted(results, key=number):
        if results[name]["behavior"] != "OK":
            verdicts[results[name]["behavior"], group(name)].append(name)
    for (verdict, _), names in verdicts.items():
        said = f"{names[0]} to {names[-1]}" if len(names) > 9 else ", ".join(names)
        lines.append(f"- {verdict}: {said}.")
    return "\n".join(lines) + "\n"


def write_doc(text, is_check):
    """Puts the summary into its place. Whether it was there already, or is now."""
    old = DOC.read_text()
    before, rest = old.split(BEGIN)
    _, after = rest.split(END)
    new = f"{before}{BEGIN}\n\n{text}\n{END}{after}"
    if new == old:
        return True
    name = DOC.relative_to(PROJECT)
    if not is_check:
        DOC.write_text(new)
        print(f"{name} has been refreshed")
        return True
    print("".join(difflib.unified_diff(old.splitlines(True), new.splitlines(True), str(name), "this run")), end="")
    print(f"{name} says something else than this run (make autobahn refreshes it)")
    return False


def report(results, suite):
    """Prints what came of it. Whether all of it is good enough."""
    table(results)
    bad = {name: it for name, it in results.items() if not passes(it, suite["cases"][name])}
    for name, it in bad.items():
        print(f"\n{name}: {it['behavior']}, close {it['close']}, after {it['seconds']} s\n"
              f"  sends: {suite['cases'][name]['description']}\n  wants: {suite['cases'][name]['expectation']}\n"
              f"  got:   {it['result']} {it.get('result_close', '')}\n"
              f"  close: {it.get('close_code')} {it.get('close_reason')!r} {it.get('unclean')}")
        if len(bad) > 20:
            print(f"\n… and {len(bad) - 1} others: {' '.join(bad)}")
            break
    slow = sorted(results.values(), key=lambda it: -it["seconds"])[:5]
    print("\nslowest: " + ", ".join(f"{it['case']} {it['seconds']:.0f} s" for it in slow))
    print(f"each case with its frames: {PLACE / 'report.json'}")
    return not bad


def arguments():
    parser = argparse.ArgumentParser(description="Autobahn's fuzzing client against pousse.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="'9.*', 12.1.1, …; all if there is none")
    parser.add_argument("--server", metavar="URL", help="test the server at ws://…, and not our echo")
    parser.add_argument("--echo", type=pathlib.Path, default=ECHO, metavar="FILE", help="the echo to start")
    parser.add_argument("--echo-flag", action="append", default=[], metavar="FLAG", help="a flag for it")
    parser.add_argument("--jobs", type=int, default=JOBS, help="cases at a time (%(default)s)")
    parser.add_argument("--check", action="store_true", help="docs/conformance.md may not differ; do not refresh it")
    return parser.parse_args()


def processor_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("autobahn: ended"))
    install()
    suite = json.loads(run([PYTHON, HERE / "client.py", CASES, "--list"], "the suite's cases cannot be listed"))
    everything = list(suite["cases"])
    if len(everything) != CASES_OF_THE_SUITE:
        fail(f"the suite has {len(everything)} cases and not {CASES_OF_THE_SUITE}")
    names = [name for name in everything if any(fnmatch.fnmatchcase(name, it) for it in args.cases or ["*"])]
    if not names:
        fail(f"no case is called {' or '.join(args.cases)}")
    for log in PLACE.glob("client-*.log"):
        log.unlink()

    echo, url = (None, args.server) if args.server else start_echo(args.echo, args.echo_flag)
    print(f"autobahn: {len(names)} cases against {url}, {args.jobs} at a time", flush=True)
    start, worked = time.monotonic(), processor_seconds()
    try:
        results = Jobs(url, names).run(args.jobs)
        if echo and echo.poll() is not None:
            fail(f"the server has ended by itself, with {echo.returncode}")
    finally:
        if echo:
            echo.kill()
            echo.wait()
    results = {name: results[name] for name in names}
    (PLACE / "report.json").write_text(json.dumps(results, indent=1))

    is_good = report(results, suite)
    # A run that broke says nothing of the server.
    is_whole = names == everything and all("result_close" in it for it in results.values())
    if is_whole and not args.server:
        is_good &= write_doc(summary(results, suite), args.check)
    bad = sum(not passes(it, suite["cases"][name]) for name, it in results.items())
    seconds, worked = time.monotonic() - start, processor_seconds() - worked
    print(f"{seconds:.0f} s, in which the processors worked {worked:.0f} s for it")
    print(f"autobahn: {len(names) - bad} passed, {bad} failed")
    sys.exit(0 if is_good else 1)


main()
