"""``python -m pglapse.demo`` is ``pglapse demo``."""

import typer

from pglapse.demo.command import demo

if __name__ == "__main__":
    typer.run(demo)
