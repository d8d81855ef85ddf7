-- keep_ledger: the ledger and the balances follow the grants, whoever changes them.
--
-- After every statement on market.point_grants: one entry for each grant whose
-- remaining points changed, and the sum onto each user's balance, so that
-- balance = sum of remaining = sum of deltas at all times. An entry is expired
-- when expired_at was set by the statement, spent when the points became fewer
-- for another reason (a deleted grant, too), granted when they became more. A
-- grant given to another user counts as taken from one and given to the other.
--
-- Balances are locked in order of user, so that inserts over many users can't
-- deadlock with each other. An UPDATE by hand has its grants locked before this
-- fires, the other way round than spend_points: should the two meet, PostgreSQL
-- ends one of them. Lock the balance first to be spared that. A balance that is
-- gone already was taken by the same deletion of its user. For enable_seqscan
-- see queue_files_of_tasks.

create or replace function market.keep_ledger()
    returns trigger
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
declare
    v_users  bigint[];
    v_deltas bigint[];
begin
    if tg_op = 'INSERT' then
        with change as (
            insert into market.point_entries (user_id, grant_id, delta, kind)
            select a.user_id, a.id, a.remaining, 'granted'
              from after_grants as a
             where a.remaining > 0
             order by a.user_id, a.id
            returning user_id, delta
        ),
        total as (select c.user_id, sum(c.delta) as delta from change as c group by c.user_id)
        select array_agg(t.user_id order by t.user_id), array_agg(t.delta order by t.user_id)
          into v_users, v_deltas
          from total as t;
    elsif tg_op = 'UPDATE' then
        with change as (
            insert into market.point_entries (user_id, grant_id, delta, kind)
            select c.user_id, c.grant_id, c.delta,
                   case when c.delta > 0 then 'granted' when c.lapsed then 'expired' else 'spent' end
              from (select coalesce(a.user_id, b.user_id) as user_id,
                           coalesce(a.id, b.id) as grant_id,
                           coalesce(a.remaining, 0) - coalesce(b.remaining, 0) as delta,
                           b.expired_at is null and a.expired_at is not null as lapsed
                      from before_grants as b
                      full join after_grants as a on a.id = b.id and a.user_id = b.user_id) as c
             where c.delta <> 0
             order by c.user_id, c.grant_id
            returning user_id, delta
        ),
        total as (select c.user_id, sum(c.delta) as delta from change as c group by c.user_id)
        select array_agg(t.user_id order by t.user_id), array_agg(t.delta order by t.user_id)
          into v_users, v_deltas
          from total as t;
    else
        with change as (
            insert into market.point_entries (user_id, grant_id, delta, kind)
            select b.user_id, b.id, -b.remaining, 'spent'
              from before_grants as b
             where b.remaining > 0
             order by b.user_id, b.id
            returning user_id, delta
        ),
        total as (select c.user_id, sum(c.delta) as delta from change as c group by c.user_id)
        select array_agg(t.user_id order by t.user_id), array_agg(t.delta order by t.user_id)
          into v_users, v_deltas
          from total as t;
    end if;

    if v_users is null then
        return null;
    end if;

    -- First an empty balance for users who have none: a row proposed with a negative number
    -- would fail its check even where it only adds to a row that exists.
    if tg_op <> 'DELETE' then
        insert into market.point_balances (user_id, balance)
        select u.user_id, 0
          from unnest(v_users, v_deltas) as u (user_id, delta)
         where u.delta > 0
           and not exists (select from market.point_balances as b where b.user_id = u.user_id)
         order by u.user_id
        on conflict (user_id) do nothing;
    end if;

    perform from market.point_balances as b where b.user_id = any (v_users) order by b.user_id for no key update;

    update market.point_balances as b
       set balance = b.balance + u.delta
      from unnest(v_users, v_deltas) as u (user_id, delta)
     where b.user_id = u.user_id
       and u.delta <> 0;

    return null;
end;
$$;

comment on function market.keep_ledger() is
    'Trigger: write ledger entries and balances after a change of grants.';

create or replace trigger keep_ledger_insert
    after insert on market.point_grants
    referencing new table as after_grants
    for each statement
    execute function market.keep_ledger();

create or replace trigger keep_ledger_update
    after update on market.point_grants
    referencing old table as before_grants new table as after_grants
    for each statement
    execute function market.keep_ledger();

create or replace trigger keep_ledger_delete
    after delete on market.point_grants
    referencing old table as before_grants
    for each statement
    execute function market.keep_ledger();

comment on trigger keep_ledger_insert on market.point_grants is 'New grants enter the ledger.';
comment on trigger keep_ledger_update on market.point_grants is 'Spent and lapsed points leave the balance.';
comment on trigger keep_ledger_delete on market.point_grants is 'What was left of a deleted grant leaves the balance.';
