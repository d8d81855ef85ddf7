-- guard_ledger: nobody writes the ledger or the balances but keep_ledger.
--
-- Entries are never changed or deleted. Entries and balances are written only
-- from within another trigger: keep_ledger, or the cascade of a user's deletion.
-- TRUNCATE of the grants would leave balances without grants, so it is refused
-- as well. Raises LP107.

create or replace function market.guard_ledger()
    returns trigger
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'TRUNCATE' then
        raise exception 'market.% can''t be truncated', tg_table_name
            using errcode = 'LP107', hint = 'DELETE from market.point_grants or market.users: the ledger follows.';
    elsif tg_table_name = 'point_entries' and tg_op <> 'INSERT' then
        raise exception 'market.point_entries is append-only'
            using errcode = 'LP107', hint = 'Correct a mistake by changing market.point_grants: it writes a new entry.';
    elsif pg_trigger_depth() < 2 then
        raise exception 'market.% is written by triggers alone', tg_table_name
            using errcode = 'LP107', hint = 'Change market.point_grants: entries and balance follow.';
    end if;

    return null;
end;
$$;

comment on function market.guard_ledger() is
    'Trigger: refuse to change the ledger or the balances directly.';

create or replace trigger guard_ledger
    before insert or update or delete or truncate on market.point_entries
    for each statement
    execute function market.guard_ledger();

create or replace trigger guard_ledger
    before insert or update or delete or truncate on market.point_balances
    for each statement
    execute function market.guard_ledger();

create or replace trigger guard_ledger
    before truncate on market.point_grants
    for each statement
    execute function market.guard_ledger();

comment on trigger guard_ledger on market.point_entries is 'Append-only, and by triggers alone.';
comment on trigger guard_ledger on market.point_balances is 'Written by triggers alone.';
comment on trigger guard_ledger on market.point_grants is 'No TRUNCATE: the balances would stay.';
