-- Tickets that are neither used nor too old. The rules are those of shared/tickets.py.

local TICKET_SECONDS, MOST_TICKETS_OF_USER, MOST_TICKETS = 30, 16, 10000

-- Removes a ticket, and returns its JSON text; null if there is none.
local function take_ticket(digest)
    local raw = redis.call('HGET', base .. 'tickets', digest)
    if not raw then
        return 'null'
    end
    local ticket = cmsgpack.unpack(raw)
    redis.call('HDEL', base .. 'tickets', digest)
    redis.call('ZREM', base .. 'ticket-times', digest)
    if redis.call('HINCRBY', base .. 'ticket-users', ticket.u, -1) <= 0 then
        redis.call('HDEL', base .. 'ticket-users', ticket.u)
    end
    return ticket.j
end

local function drop_old_tickets()
    local old = redis.call('ZRANGEBYSCORE', base .. 'ticket-times', '-inf', now - TICKET_SECONDS)
    for _, digest in ipairs(old) do
        take_ticket(digest)
    end
end
