"""The command line: `python -m benchmarks`."""

import sys

try:
    from benchmarks.cli import main

    sys.exit(main())
except ModuleNotFoundError as error:
    sys.exit(f"python -m benchmarks: error: {error.name} is missing; pip install '.[benchmarks]' brings it")
except KeyboardInterrupt:
    sys.exit(130)
