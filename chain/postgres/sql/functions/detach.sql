-- Puts this node outside the chain: it takes neither writes nor batches.
create or replace function chain.detach(p_epoch bigint)
returns void
language plpgsql
as $$
declare
    n chain.node;
begin
    perform chain.durable();
    select * into n from chain.node for no key update;

    if p_epoch < n.epoch or (n.role = 'head' and p_epoch = n.reign) then
        perform chain.fail('GC007',
            format('node %s is %s in epoch %s and can''t be detached in epoch %s',
                   n.node, n.role, n.epoch, p_epoch),
            jsonb_build_object('epoch', n.epoch));
    end if;
    update chain.node set role = 'detached', epoch = p_epoch, upstream = null, lease_until = '-infinity';
    delete from chain.progress;
end
$$;
