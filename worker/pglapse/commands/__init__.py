"""The commands, one module each. They read options and call the rest of the package; they hold no rule."""
