-- digest, user, JSON text of the ticket
begin()
drop_old_tickets()
local issued = redis.call('ZSCORE', base .. 'ticket-times', ARGV[3])
if not issued then
    if tonumber(redis.call('HGET', base .. 'ticket-users', ARGV[4]) or 0) >= MOST_TICKETS_OF_USER then
        return finish('{"limit":"user"}')
    end
    if redis.call('ZCARD', base .. 'ticket-times') >= MOST_TICKETS then
        return finish('{"limit":"all"}')
    end
    issued = now
    redis.call('HSET', base .. 'tickets', ARGV[3], cmsgpack.pack({u = ARGV[4], j = ARGV[5]}))
    redis.call('ZADD', base .. 'ticket-times', now, ARGV[3])
    redis.call('HINCRBY', base .. 'ticket-users', ARGV[4], 1)
    for _, name in ipairs({'tickets', 'ticket-times', 'ticket-users'}) do
        redis.call('PEXPIRE', base .. name, 2000 * TICKET_SECONDS)
    end
end
return finish(string.format('{"seconds":%.14g}', tonumber(issued) + TICKET_SECONDS - now))
