-- lapse.expiry_index: sees to the index that a declared policy needs.
--
-- In: the table, the policy and what its author wants: require (raise LP027 if there is none), build (make it here, in this
-- transaction, which locks the table against writes until its end), later (say which statements make it). Out: nothing, and a
-- warning where the index has rows that are never due, as they don't meet the predicate. Whether
-- an index serves is asked of the planner, about the policy's own statement: see lapse.index_proof. One that was built here on
-- a table with rows just updated (pg_index.indcheckxmin) serves only later transactions, and is taken at its word.

create or replace function lapse.expiry_index(p_target regclass, p_policy lapse.policy, p_index text)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_proof record;
    v_line  text;
begin
    select p.* into v_proof from lapse.index_proof(p_policy.name) as p;
    if v_proof.ok then
        -- Nothing of it ever leaves the head of such an index, and each run begins there.
        if p_policy.predicate is not null
           and exists (select from pg_index as x
                         join pg_class as i on i.oid = x.indexrelid
                         join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = x.indkey[0]
                        where x.indrelid = p_target and i.relname = v_proof.index_name and x.indpred is null
                          and a.attname = p_policy.due_column) then
            raise warning using
                message = format('policy %s: index %I also has the rows of %s that the predicate leaves out: those that are past '
                                 'their time are passed over again by each run', p_policy.name, v_proof.index_name, p_policy.target_table),
                hint    = format('Where they may become many: %s',
                                 (select string_agg(s.line, ' ') from lapse.index_statements(p_policy, array[p_target]) as s (line)));
        end if;
        return;
    end if;

    if p_index = 'later' then
        raise notice using
            message = format('policy %s is paused until its index is there: %s', p_policy.name,
                             replace(coalesce(v_proof.statement, v_proof.problem), chr(10), ' ')),
            hint    = format('pglapse index %s builds it without stopping anybody, and resumes the policy.', p_policy.name);
        return;
    elsif p_index = 'build' then
        foreach v_line in array coalesce(v_proof.statements, '{}') loop
            execute replace(replace(v_line, 'create index concurrently ', 'create index '), 'reindex index concurrently ', 'reindex index ');
        end loop;
        select p.* into v_proof from lapse.index_proof(p_policy.name) as p;
        if v_proof.ok then
            return;
        end if;
        if exists (select from pg_index as x
                    where x.indcheckxmin
                      and exists (select from pg_partition_tree(p_target) as t where t.relid = x.indrelid
                                   union all
                                  select where x.indrelid = p_target)
                      and exists (select from pg_locks as l  -- it is this transaction's, or a subtransaction's of it
                                   where l.locktype = 'transactionid' and l.pid = pg_backend_pid() and l.granted
                                     and l.transactionid = x.xmin)) then
            raise notice using
                message = format('policy %s: %s', p_policy.name, v_proof.problem),
                hint    = 'Rows of the table were updated a moment ago. pglapse doctor says when the index serves.';
            return;
        end if;
    end if;

    raise exception using
        errcode = 'LP027',
        message = format('policy %s: no index leads to the due rows of table %s: %s', p_policy.name, p_policy.target_table, v_proof.problem),
        hint    = coalesce(v_proof.statement || ' ', '')
                  || 'Or let it be built, p_index => ''build'' here and now, ''later'' by pglapse index.';
end;
$$;

comment on function lapse.expiry_index(regclass, lapse.policy, text) is
    'Internal: require, build or announce the index of a declared policy; raises LP027.';
