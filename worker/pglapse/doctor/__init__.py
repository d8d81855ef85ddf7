"""``pglapse doctor``: is all well? Each check is a line, with the command that mends what is wrong.

Most is the database's own to see, lapse.doctor(). Here is the rest, what only a client sees: storages,
whether LISTEN delivers, what stands in between, whose clock is wrong, which versions meet.
"""
