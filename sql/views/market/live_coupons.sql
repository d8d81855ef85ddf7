-- market.live_coupons: coupons that have not lapsed and are not used.
--
-- Whether or not policy expire_coupons has been. One that is not valid yet is
-- among them: see valid_from. Each condition that one adds reaches the table's
-- indexes; without any, coupons_due leads to those that are left.

create or replace view market.live_coupons as
    select c.id, c.code, c.user_id, c.valid_from, c.valid_until, c.created_at
      from market.coupons as c
     where c.status = 'active'
       and (c.valid_until > now() or c.valid_until is null);

comment on view market.live_coupons is 'Coupons that have not lapsed and are not used, swept or not.';
comment on column market.live_coupons.id is 'Number of the coupon.';
comment on column market.live_coupons.code is 'What the user types.';
comment on column market.live_coupons.user_id is 'Whose it is; NULL: anybody''s.';
comment on column market.live_coupons.valid_from is 'Not valid before this time.';
comment on column market.live_coupons.valid_until is 'Lapses at this time; NULL: never.';
comment on column market.live_coupons.created_at is 'When it was made.';
