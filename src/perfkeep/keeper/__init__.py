"""Holds every event's fd and ring mapping, with an opaque value beside each. No policy.

Standard library only: this process must be small and asleep.
"""
