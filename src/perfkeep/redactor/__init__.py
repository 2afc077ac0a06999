"""Takes the kernel's addresses out of a copy of a ring, for readers who may not see them.

A process of its own, started by the broker for one snapshot of a guest's: the broker itself parses
nothing, and whatever a ring may hold is looked at here, without privileges.
"""
