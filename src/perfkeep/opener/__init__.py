"""Opens events again for a recording whose events have died, with its owner's rights.

A process of its own, started by the broker, which opens nothing itself and may be root: here the
kernel decides what the owner may, as it did when the recording was started.
"""
