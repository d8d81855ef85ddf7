-- count_reviews: the statistics of users follow the reviews, whoever changes them.
--
-- After every INSERT, UPDATE and DELETE of reviews (those included that cascade
-- from a user or a task), and before a TRUNCATE: what changed for each person
-- rated is added to market.user_statistics_deltas. See count_tasks, which does the
-- same for tasks.

create or replace function market.count_reviews()
    returns trigger
    language plpgsql
    volatile
    security definer  -- whoever may change a review needs no right on the statistics
    set search_path = pg_catalog, pg_temp
    set jit = off
as $$
begin
    if tg_op = 'INSERT' then
        insert into market.user_statistics_deltas (user_id, reviews, rating_sum)
        select a.subject_id, count(*), sum(a.rating)
          from after_reviews as a
         group by a.subject_id;
    elsif tg_op = 'UPDATE' then
        insert into market.user_statistics_deltas (user_id, reviews, rating_sum)
        select c.user_id, sum(c.reviews), sum(c.rating)
          from (select a.subject_id as user_id, 1 as reviews, a.rating as rating from after_reviews as a
                union all
                select b.subject_id, -1, -b.rating from before_reviews as b) as c
         group by c.user_id
        having (sum(c.reviews), sum(c.rating)) <> (0, 0);
    elsif tg_op = 'DELETE' then
        insert into market.user_statistics_deltas (user_id, reviews, rating_sum)
        select b.subject_id, -count(*), -sum(b.rating)
          from before_reviews as b
         group by b.subject_id;
    else
        insert into market.user_statistics_deltas (user_id, reviews, rating_sum)
        select r.user_id, -r.reviews, -r.rating_sum
          from market.user_statistics_recount as r
         where r.reviews <> 0;
    end if;

    return null;
end;
$$;

comment on function market.count_reviews() is
    'Trigger: note what a change of reviews means for the statistics of those rated.';

create or replace trigger count_reviews_insert
    after insert on market.reviews
    referencing new table as after_reviews
    for each statement
    execute function market.count_reviews();

create or replace trigger count_reviews_update
    after update on market.reviews
    referencing old table as before_reviews new table as after_reviews
    for each statement
    execute function market.count_reviews();

create or replace trigger count_reviews_delete
    after delete on market.reviews
    referencing old table as before_reviews
    for each statement
    execute function market.count_reviews();

create or replace trigger count_reviews_truncate
    before truncate on market.reviews
    for each statement
    execute function market.count_reviews();

comment on trigger count_reviews_insert on market.reviews is 'New reviews are counted.';
comment on trigger count_reviews_update on market.reviews is 'Changed ones are counted anew.';
comment on trigger count_reviews_delete on market.reviews is 'Deleted ones are counted no more.';
comment on trigger count_reviews_truncate on market.reviews is 'TRUNCATE takes off what all reviews counted.';
