"""`perfkeep mount`: show the persistent events in /sys, where programs look for them."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(_: argparse.Namespace) -> int:
    from perfkeep.client import sysfs
    from perfkeep.wire import instance

    new = sysfs.mount_at_literal_path(instance.current())
    print(f"{sysfs.LITERAL} {'shows' if new else 'showed already'} the persistent events")
    return 0
