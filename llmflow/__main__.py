"""`python -m llmflow` is `llmflow`."""

import sys

from llmflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
