"""`perfkeep chmod`: who may see a recording, and who may control it."""

from __future__ import annotations

import argparse

from perfkeep.cli.common import mode, recording_name
from perfkeep.client.recording import Recording


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mode", metavar="MODE", help="in octal, like 0640: r sees, w controls")
    parser.add_argument("names", metavar="NAME", nargs="+", type=recording_name)


def run(options: argparse.Namespace) -> int:
    bits = mode(options.mode)
    for name in options.names:
        Recording(name).chmod(bits)
        print(f"{name} has mode {bits:04o}")
    return 0
