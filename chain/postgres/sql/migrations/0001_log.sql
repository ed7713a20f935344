-- The log, the node's own row, and what a chain needs beside them.

create table chain.event (
    position    bigint      not null,
    epoch       bigint      not null,
    stream      text        not null collate "C",
    revision    bigint      not null,
    id          uuid        not null,
    type        text        not null collate "C",
    data        bytea       not null,
    metadata    bytea       not null,
    recorded_at timestamptz not null,

    constraint event_position primary key (position),
    constraint event_stream   unique (stream, revision),
    constraint event_id       unique (id),
    constraint event_named    check (octet_length(stream) between 1 and 512
                                 and octet_length(type)   between 1 and 512),
    constraint event_placed   check (position > 0 and epoch > 0 and revision >= 0)
);

comment on table chain.event is
    'The log: positions are dense from 1, revisions of a stream are dense from 0.';

-- One row: this node's word about itself. Every append and every apply locks it first, so that an append,
-- a fence and a promotion can never pass each other.
create table chain.node (
    one_row      boolean     not null default true primary key,
    chain        text,
    node         text,
    role         text        not null default 'detached',
    epoch        bigint      not null default 0,  -- the newest known: everything older is refused
    reign        bigint      not null default 0,  -- the epoch of this node's own latest promotion
    promotion    uuid,                            -- and its id
    upstream     text,                            -- the node whose log this one follows
    tip_position bigint      not null default 0,
    tip_epoch    bigint      not null default 0,
    clock        timestamptz not null default '-infinity',  -- the latest time that was given to an event
    seen         timestamptz not null default '-infinity',  -- the latest reading of the clock in this reign
    lease_until  timestamptz not null default '-infinity',  -- as head, takes writes before this time
    promised     timestamptz not null default '-infinity'   -- as follower, is not promoted before this time
) with (fillfactor = 10);

-- What check constraints would say. Those are judged anew at every update of any column, and each append makes one: it
-- took a sixth of its time to compile them.
create function chain.check_node()
returns trigger
language plpgsql
as $$
begin
    if not new.one_row or new.chain = '' or new.node = ''
       or new.role not in ('head', 'middle', 'tail', 'detached')
       or new.reign > new.epoch
       or (new.upstream is null) <> (new.role in ('head', 'detached')) then
        raise check_violation using message = 'a node can''t be: ' || new::text, schema = 'chain', table = 'node';
    end if;
    return new;
end
$$;

create trigger check_node
    before insert or update of one_row, chain, node, role, epoch, reign, upstream on chain.node
    for each row execute function chain.check_node();

insert into chain.node default values;

-- Holds nothing: appends lock it, to queue for the node's row. Only who may write to it can make them wait.
create table chain.queue ();

-- Empty after a crash (it is unlogged) and wrong after a restart or a restore: so a head notices that its
-- server may have gone back, and takes no write until its next promotion.
create unlogged table chain.alive (
    reign   bigint      not null primary key,
    started timestamptz not null  -- pg_postmaster_start_time() at the promotion
);

-- How far the nodes downstream have the log, as they told it.
create table chain.progress (
    node     text        not null primary key,
    position bigint      not null,
    epoch    bigint      not null,
    told_at  timestamptz not null
) with (fillfactor = 50);

-- Events of dead branches, from the moment they leave the log until their ledger entries have come back.
create table chain.dead (
    like chain.event,
    fork bigint      not null,
    node text        not null,
    kept timestamptz not null default clock_timestamp(),

    primary key (id, position, epoch)
);

create index dead_in_order on chain.dead (epoch, position);

-- In the registry's database: who may take writes in which chain. A renewal counts up, and no more.
create table chain.lease (
    chain       text   not null primary key,
    epoch       bigint not null,
    holder      text   not null,  -- empty between two heads
    renewals    bigint not null,
    duration_ms bigint            -- null for a head without a lease
) with (fillfactor = 50);
