"""The demo: a marketplace in a database of its own, real files, a real worker, and a proof at the end."""
