"""Types and helpers that tests of several folders share. `pythonpath` in pyproject.toml makes
them importable as `support`; fixtures stay in the conftest.py of their folder.
"""
