select i + 2 as position,
       case when place < 100 then 'account-100000'
            when place = 100 then 'account-1000'
            when place = 101 and block % 100 = 0 then 'account-10'
            when place = 101 then 'account-rest'
            else 'order-' || (block / 50) * 898 + place - 102
       end as stream,
       case when place < 100 then block * 100 + place
            when place = 100 then block
            when place = 101 and block % 100 = 0 then block / 100
            when place = 101 then block - block / 100 - 1
            else block % 50
       end as revision,
       (lpad(to_hex(1750000000000 + i), 12, '0') || '7' || substr(h, 1, 3) || '8' || substr(h, 4, 15))::uuid as id,
       'OrderPlaced' as type,
       convert_to(
           '{"n":"' || lpad(i::text, 10, '0') || '","payload":"'
           || h || md5(h || 1) || md5(h || 2) || md5(h || 3) || md5(h || 4) || '"}', 'UTF8') as data,
       convert_to('{"traceparent":"00-' || h || '-' || substr(h, 1, 16) || '-01"}', 'UTF8') as metadata,
       timestamptz '2026-01-01' + i * interval '1 ms' as recorded_at
  from (select i, i / 1000 as block, i % 1000 as place, md5(i::text) as h
          from generate_series($1::bigint, $2::bigint) as i) as numbered
