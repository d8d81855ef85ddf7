-- lapse.own_blocked_row: rows set aside or held, of tables that the reader owns.
--
-- lapse.blocked_row is the engine owner's alone, since it names rows of everybody's tables. This shows
-- whoever reads it only those of tables whose owner he is, or may act as; of policies that name no table, none. For which row
-- of somebody else's table one of his is kept, it does not say.

create or replace view lapse.own_blocked_row with (security_barrier) as
    select b.policy, b.key, b.due, b.sqlstate,
           case when b.hold_table is null or b.hold_table = p.target_table
                     or exists (select from pg_class as h
                                  join pg_namespace as s on s.oid = h.relnamespace
                                 where s.nspname = (parse_ident(b.hold_table))[1]
                                   and h.relname = (parse_ident(b.hold_table))[2]
                                   and pg_has_role(h.relowner, 'USAGE'))
                then b.error
                else 'held: a row that would go along with it is held' end as error,
           b.attempts, b.since, b.retry_at
      from lapse.blocked_row as b
      join lapse.policy as p on p.name = b.policy
      join pg_namespace as n on n.nspname = (parse_ident(p.target_table))[1]
      join pg_class as c on c.relnamespace = n.oid and c.relname = (parse_ident(p.target_table))[2]
     where pg_has_role(c.relowner, 'USAGE');

comment on view lapse.own_blocked_row is 'Rows set aside or held, of the reader''s own tables.';
comment on column lapse.own_blocked_row.policy is 'The policy.';
comment on column lapse.own_blocked_row.key is 'The row''s key as text.';
comment on column lapse.own_blocked_row.due is 'When it fell due.';
comment on column lapse.own_blocked_row.sqlstate is 'SQLSTATE of the error; NULL where a trigger or a rule kept the row.';
comment on column lapse.own_blocked_row.error is 'Its error.';
comment on column lapse.own_blocked_row.attempts is 'Failed attempts so far.';
comment on column lapse.own_blocked_row.since is 'When it was first set aside.';
comment on column lapse.own_blocked_row.retry_at is 'When it is tried again; infinity: it is held.';
