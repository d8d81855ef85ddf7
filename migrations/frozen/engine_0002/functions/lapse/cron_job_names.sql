-- lapse.cron_job_names: what this database's jobs are called.
--
-- In: whether pg_cron lives in another database. Out: the names of the two jobs
-- that tick and, elsewhere, of the one that prunes, in this order. Names elsewhere
-- carry this database's name, shortened where pg_cron's 63 bytes would cut it and
-- make the jobs of two databases one.

create or replace function lapse.cron_job_names(p_elsewhere boolean)
    returns text[]
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select case
        when not p_elsewhere then array['lapse-1', 'lapse-2']
        else array['lapse-1@' || d.short, 'lapse-2@' || d.short, 'lapse-prune@' || d.short]
    end
      from (select case
                when octet_length(current_database()) <= 50 then current_database()::text
                else left(current_database(), 8) || '~'
                     || left(encode(sha256(convert_to(current_database(), 'UTF8')), 'hex'), 16)
            end) as d(short)
$$;

comment on function lapse.cron_job_names(boolean) is
    'The names of this database''s pg_cron jobs, here or in another database.';
