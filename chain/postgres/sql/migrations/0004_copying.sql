-- Holds nothing: links lock it while they copy, beside each other (chain.end_copies). A lock that only who may write
-- here can take: nobody else can make a promotion wait.
create table chain.copying ();

-- As they were when a batch was copied under the lock of the node's row.
drop function if exists chain.apply_begin(bigint, text, bigint, bigint, boolean);
drop function if exists chain.apply_end(bigint);
