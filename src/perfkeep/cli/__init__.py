"""The command line: one file per verb. Only `main` prints errors and chooses exit codes."""
