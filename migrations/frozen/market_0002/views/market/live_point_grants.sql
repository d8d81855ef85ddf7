-- market.live_point_grants: gifts of points with something left that has not lapsed.
--
-- Whether or not policy expire_points has been: what a user can spend is their
-- sum, as market.point_balance says it. A user's are found by
-- point_grants_spendable.

create or replace view market.live_point_grants as
    select g.id, g.user_id, g.amount, g.remaining, g.granted_at, g.expires_at
      from market.point_grants as g
     where g.remaining > 0
       and (g.expires_at > now() or g.expires_at is null);

comment on view market.live_point_grants is 'Points that can be spent, by grant, swept or not.';
comment on column market.live_point_grants.id is 'Number of the grant.';
comment on column market.live_point_grants.user_id is 'Whose points.';
comment on column market.live_point_grants.amount is 'Points given.';
comment on column market.live_point_grants.remaining is 'Points left.';
comment on column market.live_point_grants.granted_at is 'When they were given.';
comment on column market.live_point_grants.expires_at is 'Lapses at this time; NULL: never.';
