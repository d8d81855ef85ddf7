#!/usr/bin/env bash
# Runs once, when the data directory is made: loads pg_cron and makes POSTGRES_DB the database where it lives.
#
# Both settings are read at server start only and the extension can be created in no other database, hence the restart.
# For a data directory that exists already, put the lines below into its postgresql.conf by hand.
set -Eeuo pipefail

database=${POSTGRES_DB:-${POSTGRES_USER:-postgres}}

cat >> "$PGDATA/postgresql.conf" <<CONF

# pg_cron. Its jobs run in background workers: that needs neither a password nor a line in pg_hba.conf.
shared_preload_libraries = 'pg_cron'
cron.database_name = '${database//\'/\'\'}'
cron.use_background_workers = on
max_worker_processes = 20
CONF

pg_ctl --pgdata="$PGDATA" --mode=fast --wait restart
psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname="$database" \
    --command='create extension pg_cron'
