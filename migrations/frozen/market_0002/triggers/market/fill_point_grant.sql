-- fill_point_grant: of a new grant, everything is left.
--
-- Fires before an INSERT that leaves remaining NULL, which is most of them.

create or replace function market.fill_point_grant()
    returns trigger
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    new.remaining := new.amount;

    return new;
end;
$$;

comment on function market.fill_point_grant() is
    'Trigger: remaining of a new grant is its amount unless given.';

create or replace trigger fill_point_grant
    before insert on market.point_grants
    for each row
    when (new.remaining is null)
    execute function market.fill_point_grant();

comment on trigger fill_point_grant on market.point_grants is 'remaining defaults to amount.';
