"""`perfkeep umount`: take the persistent events out of /sys again."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(_: argparse.Namespace) -> int:
    import errno

    from perfkeep.client import sysfs
    from perfkeep.errors import UsageError

    if not sysfs.umount_from_literal_path():
        raise UsageError(f"{sysfs.LITERAL} is not mounted by perfkeep", errno.EINVAL)
    print(f"{sysfs.DEVICES} is as it was")
    return 0
