"""The command line: `python -m benchmarks`."""

import sys

try:
    from benchmarks.command_line import main
except ModuleNotFoundError as error:
    sys.exit(
        f"python -m benchmarks: error: {error.name} is not installed; pip install '.[benchmarks]' brings it"
    )

sys.exit(main())
