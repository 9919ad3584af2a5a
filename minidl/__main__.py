"""The command line: ``python -m minidl doctor`` checks whether this machine has everything that minidl needs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command given by `arguments`, by default the command line's, and return the exit status."""
    options = argparse.ArgumentParser(prog="python -m minidl", description="minidl's command.")
    commands = options.add_subparsers(dest="command", metavar="command", required=True)
    what = "check what minidl needs on this machine, and say what to do where something is wrong"
    commands.add_parser("doctor", help=what, description=what)
    options.parse_args(arguments)
    from minidl.tools.doctor import report  # slow, so only after the options are parsed

    return report()


if __name__ == "__main__":
    sys.exit(main())
