"""A service that stalls now and then: the workload of the tutorial.

Four workers answer requests, each in about a millisecond, and note what they did in a journal. Its
log says only that a request was slow. Why, README.md finds out.

    python service.py            until ^C
    python service.py --for 6    six seconds
"""

import argparse
import os
import tempfile
import threading
import time
import zlib

SLOW_S = 0.05


def called(name: str) -> None:
    """Have the kernel call this thread so: Python itself does not before 3.14."""
    with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w") as comm:
        comm.write(name)


class Journal:
    """What was done. Now and then all of it is checked, and written to disk."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "journal")
        self._lock = threading.Lock()
        self._day = b"what was done on a day long ago\n" * (1 << 20)
        self._entries: list[bytes] = []

    def note(self, entry: bytes) -> None:
        with self._lock:
            self._entries.append(entry)

    def save(self) -> None:
        with self._lock:
            entries, self._entries = self._entries, []
            with open(self._path, "ab") as file:
                file.writelines(entries)
                checksum = 0
                for _ in range(10):
                    checksum = zlib.crc32(self._day, checksum)
                file.write(b"%08x\n" % checksum)
                file.flush()
                os.fsync(file.fileno())


def work(journal: Journal, ended: threading.Event) -> None:
    called("worker")
    number = 0
    while not ended.is_set():
        began = time.monotonic()
        sorted(range(20_000), reverse=True)  # the request itself
        journal.note(b"request %d\n" % number)
        took = time.monotonic() - began
        if took > SLOW_S:
            print(f"slow request: {took * 1000:.0f} ms", flush=True)
        number += 1
        ended.wait(0.005)


def clean(journal: Journal, ended: threading.Event) -> None:
    called("janitor")
    while not ended.wait(1.0):
        journal.save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--for", dest="span", type=float, metavar="SECONDS")
    options = parser.parse_args()
    ended = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(folder)
        threads = [threading.Thread(target=work, args=(journal, ended)) for _ in range(4)]
        threads.append(threading.Thread(target=clean, args=(journal, ended)))
        for thread in threads:
            thread.start()
        try:
            ended.wait(options.span)
        except KeyboardInterrupt:
            pass
        ended.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
