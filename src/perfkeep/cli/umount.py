"""`perfkeep umount`: take the persistent events out of /sys again."""

from __future__ import annotations

import argparse
import errno


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(_: argparse.Namespace) -> int:

    from perfkeep.client import sysfs
    from perfkeep.errors import PerfkeepError

    if not sysfs.umount_from_literal_path():
        raise PerfkeepError(errno.EINVAL, f"{sysfs.LITERAL} is not mounted by perfkeep")
    print(f"{sysfs.DEVICES} is as it was")
    return 0
