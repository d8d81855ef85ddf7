-- lapse.doctor_sweeps: did the last sweeps for forgotten files come to an end?
--
-- In: the time. Out: findings for lapse.doctor. A sweep stops by itself where what it finds
-- looks wrong, and says why; one that began and never ended had a worker that went away.

create or replace function lapse.doctor_sweeps(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select 'warn',
           format('the last sweep of storage %s, %s ago, stopped: %s', s.name, lapse.doctor_span(p_now - s.sweep_ended_at),
                  left(s.sweep_result ->> 'stopped', 300)),
           format('pglapse sweep --dry-run --storage %s  # look, then again without --dry-run and with the limits that it names', lapse.shell_word(s.name))
      from lapse.storage as s
     where s.sweep_result ->> 'stopped' is not null
       and s.sweep_result ->> 'stopped' <> 'told to stop'
    union all
    select 'warn',
           format('a sweep of storage %s began %s ago and has not ended: its worker is gone, or it is still at it', s.name,
                  lapse.doctor_span(p_now - s.sweep_began_at)),
           format('pglapse sweep --storage %s', lapse.shell_word(s.name))
      from lapse.storage as s
     where s.sweep_began_at < p_now - interval '7 hours'
       and (s.sweep_ended_at is null or s.sweep_ended_at < s.sweep_began_at)
    union all
    select 'ok',
           coalesce(string_agg(format('%s: %s ago, %s files, %s orphans, %s queued', s.name, lapse.doctor_span(p_now - s.sweep_ended_at),
                                      s.sweep_result ->> 'files', s.sweep_result ->> 'orphans', s.sweep_result ->> 'queued'),
                               '; ' order by s.name), 'no storage has been swept'),
           null
      from lapse.storage as s
     where s.sweep_result is not null
$$;

comment on function lapse.doctor_sweeps(timestamptz) is
    'Check of lapse.doctor: sweeps that stopped by themselves, or never ended.';
