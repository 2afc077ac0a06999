"""Kills what can be killed, again and again, and looks whether anything was lost."""
