"""`python -m perfkeep`: the command line."""

import sys

from perfkeep.cli.main import main

sys.exit(main())
