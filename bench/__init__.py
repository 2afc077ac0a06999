"""Figures, each beside its peer in one run: `make bench`, or `python -m bench NAME…`."""
