"""pglapse: rows lapse, their files follow.

The rules live in the database (``sql/``); this package installs them
(``pglapse upgrade``) and does what PostgreSQL cannot: delete files.
"""

__version__ = "0.1.0"
