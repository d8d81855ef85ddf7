"""``python -m pglapse`` is the console script by another name."""

from pglapse.cli import main

if __name__ == "__main__":
    main()
