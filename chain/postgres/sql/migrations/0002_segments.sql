-- What was verified, when, and what it looked like then.

create table chain.segment (
    number     bigint      not null primary key check (number > 0),
    last       bigint      not null,
    value      bytea       not null,
    sealed_at  timestamptz not null default clock_timestamp(),
    checked_at timestamptz not null default clock_timestamp(),

    constraint segment_range check (last between (number - 1) * 16384 + 1 and number * 16384)
) with (fillfactor = 50);

comment on table chain.segment is
    'Segment n is the positions (n - 1) * 16384 + 1 to n * 16384. Its digest up to `last` was computed by this node'
    ' from its own rows and agreed with a neighbour at `sealed_at`; at `checked_at` the rows still gave it.';
