"""The command line: ``python -m minidl doctor`` checks this machine, ``run`` runs a PyTorch script."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command given by `arguments`, by default the command line's, and return the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["run"]:  # all that follows is the script's
        from minidl.compat.run import run

        return run(given[1:])
    options = argparse.ArgumentParser(prog="python -m minidl", description="minidl's command.")
    commands = options.add_subparsers(dest="command", metavar="command", required=True)
    what = "check what minidl needs on this machine, and say what to do where something is wrong"
    commands.add_parser("doctor", help=what, description=what)
    commands.add_parser("run", help="run a PyTorch script with minidl as its torch, or list what it needs: run --help")
    options.parse_args(given)
    from minidl.tools.doctor import report  # slow, so only after the options are parsed

    return report()


if __name__ == "__main__":
    sys.exit(main())
