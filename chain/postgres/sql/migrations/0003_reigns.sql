-- The promotions, found without the indexes that a node is loaded without.
create index event_reign on chain.event (revision) where stream = '$epoch';
