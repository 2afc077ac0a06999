"""What client and broker agree on about sidebands."""

from __future__ import annotations

#: Of each CPU's ring, without the control page.
RING_BYTES = 64 << 10
#: The broker is woken when so much of it is new.
WATERMARK = RING_BYTES // 4
#: What a client may tell of processes that ran before; the broker keeps less.
MOST_SCANNED = 16 << 20
#: What the broker keeps of all tasks of a recording.
ROOM = 2 << 20
#: When the log of it is longer, it is begun anew; what was read last may come on top.
MOST_LOGGED = 2 * ROOM
