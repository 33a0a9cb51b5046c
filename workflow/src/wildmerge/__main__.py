"""`python -m wildmerge`, the same as the command `wildmerge`."""

import sys

from wildmerge.cli.main import main

sys.exit(main())
