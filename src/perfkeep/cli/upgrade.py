"""`perfkeep upgrade`: have the running daemons go on with this perfkeep's code."""

from __future__ import annotations

import argparse

import perfkeep
from perfkeep.client.upgrade import upgrade


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(options: argparse.Namespace) -> int:
    versions = upgrade()
    if versions is None:
        print(f"no instance runs; the next command starts perfkeep {perfkeep.__version__}")
        return 0
    before, after = versions
    step = f"from perfkeep {before} to {after}" if before != after else f"as perfkeep {after}"
    print(f"the daemons went on {step}; every recording went on")
    return 0
