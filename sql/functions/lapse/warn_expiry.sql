-- lapse.warn_expiry: what works, and not as its author may think.
--
-- In: the table and the policy. Out: nothing but warnings: rows that get older than they are meant to, since nobody
-- looks that often; child tables that are read from end to end for each row that is deleted, with the index that mends it.

create or replace function lapse.warn_expiry(p_target regclass, p_policy lapse.policy)
    returns void
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_child record;
begin
    if p_policy.older_than < p_policy.every then
        raise warning using
            message = format('policy %s: rows of %s are to lapse at the age of %s, and it runs every %s: they may get %s old',
                             p_policy.name, p_policy.target_table, p_policy.older_than, p_policy.every,
                             p_policy.older_than + p_policy.every),
            hint    = 'Give a smaller p_every, and let reads check the age themselves.';
    end if;
    if p_policy.action = 'delete' then
        for v_child in select u.* from lapse.unindexed_children(p_target) as u loop
            raise warning using
                message = format('policy %s: for each row that goes from %s, all of %s is read: foreign key %s has no index',
                                 p_policy.name, p_policy.target_table, v_child.child, v_child.constraint_name),
                hint    = v_child.statement;
        end loop;
    end if;
end;
$$;

comment on function lapse.warn_expiry(regclass, lapse.policy) is
    'Internal: warns of a cadence that is too slow for an age, and of foreign keys without index.';
