-- lapse.lockers: who has this row locked, without waiting for them.
--
-- In: the table, or partition, that has the row, and the row's xmax. Out: a sentence for each. The xmax is the number of the
-- transaction that locked, changed or deletes the row, or of a group of such. Only one that still goes on and
-- has the table locked as well is told of: a number alone may be another's. Of a role that this one may not look
-- at, the server shows the process and not what it does.

create or replace function lapse.lockers(p_table oid, p_xmax xid)
    returns table (says text)
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_xids xid[] := array[p_xmax];
begin
    if p_xmax = '0' then
        return;
    end if;

    if not exists (select from pg_locks as l where l.locktype = 'transactionid' and l.transactionid = p_xmax) then
        begin
            v_xids := array(select m.xid from pg_get_multixact_members(p_xmax) as m);
        exception
            when others then
                return;  -- it is no group, but a transaction that is over
        end;
    end if;

    return query
    select format('locked by pid %s%s, in its transaction for %s%s', l.pid, ' (' || nullif(a.application_name, '') || ')',
                  date_trunc('second', clock_timestamp() - a.xact_start), ': ' || left(nullif(a.query, ''), 100))
      from pg_locks as l
      join pg_stat_activity as a on a.pid = l.pid
     where l.locktype = 'transactionid' and l.granted and l.mode = 'ExclusiveLock' and l.transactionid = any (v_xids)
       and l.pid <> pg_backend_pid()
       and exists (select from pg_locks as t where t.pid = l.pid and t.relation = p_table and t.granted)
     order by l.pid;
end;
$$;

comment on function lapse.lockers(oid, xid) is
    'Internal: which sessions have a row locked, by its xmax.';
