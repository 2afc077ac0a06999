"""`perfkeep upgrade`: have the running daemons go on with this perfkeep's code."""

from __future__ import annotations

import argparse

from perfkeep.client.upgrade import upgrade


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(options: argparse.Namespace) -> int:
    before, after = upgrade()
    print(f"the daemons went on from perfkeep {before} to {after}; every recording went on")
    return 0
