#!/bin/sh
# Read the password from the file that PGPASSWORD_FILE names, as official images do, then become the command.
# libpq's own PGPASSFILE won't do: it ignores a file that others may read, which is how secrets are mounted.
set -eu
if [ -n "${PGPASSWORD_FILE:-}" ]; then
    PGPASSWORD=$(cat "$PGPASSWORD_FILE")
    export PGPASSWORD
fi
exec "$@"
