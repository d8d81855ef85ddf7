"""Break things at random while applications and workers go on, then judge what became of every file.

``python -m tests.chaos --help``; docs/chaos.md says what each campaign does and what it found.
"""
