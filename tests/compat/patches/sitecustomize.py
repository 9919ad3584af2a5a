"""Python imports this file first, where its folder is on PYTHONPATH: random numbers of scripts under test.

The environment says for which library, and where to leave the list of draws and of files written elsewhere.
"""

import atexit
import json
import os
import sys

from tests.compat.stream import install

HERE = os.path.realpath(os.getcwd())
NOT_THE_SCRIPTS = os.environ["NUMBA_CACHE_DIR"], os.environ["TMPDIR"], "/dev", "/proc"
ALLOWED = tuple(f"{os.path.realpath(path)}{os.sep}" for path in (HERE, *NOT_THE_SCRIPTS))
elsewhere = []


def watch(event, args):
    """An audit hook: remember files that are opened to be written outside of the script's folder."""
    if event == "open" and isinstance(args[0], str):
        path, _, flags = args
        if flags & (os.O_WRONLY | os.O_RDWR) and not os.path.realpath(path).startswith(ALLOWED):
            elsewhere.append(path)


sys.addaudithook(watch)
stream = install(os.environ["SCRIPT_LIBRARY"])


@atexit.register
def report():
    """What a test compares."""
    text = json.dumps({"draws": stream.draws, "elsewhere": elsewhere})
    with open(os.environ["SCRIPT_REPORT"], "w") as file:
        file.write(text)
