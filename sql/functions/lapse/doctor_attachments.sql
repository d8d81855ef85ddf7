-- lapse.doctor_attachments: do attached tables still queue their files?
--
-- In: the time. Out: findings for lapse.doctor, by lapse.attachment_findings. Triggers that are
-- switched off are lapse.doctor_triggers' business, with all others of ours.

create or replace function lapse.doctor_attachments(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select case when f.problem like 'no worker has ever served %' then 'warn' else 'fail' end,
           format('files of %s.%s: %s', f.target_table, f.path_column, f.problem),
           replace(f.command, chr(10), ' ')
      from lapse.attachment_findings() as f
     where f.problem not like 'trigger % is disabled'
    union all
    select 'ok', format('%s attached columns queue their files', count(*)), null
      from lapse.attachment as a
$$;

comment on function lapse.doctor_attachments(timestamptz) is
    'Check of lapse.doctor: tables of lapse.attach_files whose files are not queued.';
