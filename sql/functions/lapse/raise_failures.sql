-- lapse.raise_failures: say at the end what went wrong on the way.
--
-- In: numbers of entries in lapse.run_log. Out: nothing when there are none.
-- Raises LP006 otherwise, naming the policies, with each one's SQLSTATE and message as
-- detail. Everything is committed by then: the error only tells the caller, so
-- that pg_cron shows a failed job and lapse.run fails in a script.

create or replace function lapse.raise_failures(p_failed bigint[])
    returns void
    language plpgsql
    stable
    security definer  -- whoever may tick needs no right on the tables
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_names  text;
    v_detail text;
    v_hint   text;
begin
    select string_agg(distinct l.policy, ', ' order by l.policy),
           string_agg(concat_ws(' ', l.policy || ':', '[' || l.sqlstate || ']', l.message, '(' || l.detail || ')'),
                      chr(10) order by l.id),
           max(l.hint)
      into v_names, v_detail, v_hint
      from lapse.run_log as l
     where l.id = any (p_failed);
    if v_names is not null then
        raise exception using
            errcode = 'LP006',
            message = format('failed: %s', v_names),
            detail  = v_detail,
            hint    = coalesce(v_hint, 'See lapse.run_log for the context.');
    end if;
end;
$$;

comment on function lapse.raise_failures(bigint[]) is
    'Raise LP006 for these entries of lapse.run_log, if there are any.';
