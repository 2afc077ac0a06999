"""Decides: names, ids, who may, rings, snapshots. Copies rings and never parses them."""
