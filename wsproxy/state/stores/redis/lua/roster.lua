-- Members, leases and the epoch. The rules are those of shared/roster.py.
--
-- A member's record has n: serial; id; j: JSON text of the member; lease; expires; known; applied; batch; held: how
-- many sessions; marks: how many; round: its publication; s: the newest schema that it knows; r: version
-- of the roster that it knows.

local HEARD = 1  -- seconds in which every member that is in step has beaten
local KEEP_SECONDS = 60

local function is_settled()
    if not meta.settled and meta.lease > 0 then
        local waited = now - meta.begun
        local heard = meta.heard and not next(meta.awaited) and waited >= HEARD
        meta.settled = heard or waited >= meta.lease
        if meta.settled then
            meta.awaited = {}
        end
    end
    return meta.settled
end

local function renew(record)
    record.expires = now + record.lease
    later('ZADD', base .. 'expiry', record.expires, record.id)
    if fresh.members then
        later('PEXPIRE', base .. 'expiry', COMMON_MS)
    end
end

-- Keeps alive what a member shares with others, and what it has itself. Not at each beat: once a minute will do.
local function keep(record)
    local id = record.id
    sweep_ended()
    if record.kept and record.kept + KEEP_SECONDS > now then
        return
    end
    record.kept = now
    for _, name in ipairs({'places', 'users', 'members', 'expiry'}) do
        later('PEXPIRE', base .. name, COMMON_MS)
    end
    for _, name in ipairs({'sessions:', 'marks:', 'mail:'}) do
        later('PEXPIRE', base .. name .. id, OWN_MS)
    end
    later('PEXPIRE', common .. 'schema', META_MS)
end

-- Goes on with a newer schema if all members know it, and know which members there are: they will say so there.
local function rise(record)
    if record.s <= SCHEMA or not is_settled() then
        return
    end
    local newest = record.s
    for _, other in ipairs(get_all('members')) do
        newest = other.r == meta.roster and math.min(newest, other.s) or SCHEMA
    end
    if newest > SCHEMA then
        move_to(newest)
        refer_to(newest)
    end
end

local function drop_own(id)
    drop_all('sessions:' .. id)
    drop_all('marks:' .. id)
    mail[id] = nil
    dropped[id] = true
end

local function remove(record)
    local id = record.id
    forget(record)
    put('members', id, false)
    drop_own(id)
    later('ZREM', base .. 'expiry', id)
    end_turns(id)
    meta.awaited[id] = nil
    meta.roster = meta.roster + 1
end

local function begin_epoch()
    meta.run, meta.epoch, meta.begun, meta.settled, meta.lease = ARGV[1], ARGV[2], now, false, 0
    meta.awaited, meta.heard = {}, false
    for _, record in ipairs(get_all('members')) do
        record.known, record.applied = false, 0
        renew(record)
        meta.lease = math.max(meta.lease, record.lease)
        meta.awaited[record.id] = true
        meta.heard = true
    end
    for _, name in ipairs({'tickets', 'ticket-times', 'ticket-users'}) do
        redis.call('DEL', base .. name)
    end
end

-- Forgets the members whose leases have passed.
local function advance()
    local lapsed = {}
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', base .. 'expiry', '-inf', now)) do
        lapsed[#lapsed + 1] = get('members', id) or nil
    end
    table.sort(lapsed, function(one, other) return one.n < other.n end)
    for _, record in ipairs(lapsed) do
        remove(record)
    end
end

-- Begins a script: nothing is decided by what an earlier epoch left.
local function begin()
    start()
    if meta.run ~= ARGV[1] then
        advance()
        begin_epoch()
    end
end

local function join(id, text, lease, knew)
    local record = get('members', id)
    if not record then
        drop_own(id)
        record = put('members', id, {n = serial(), id = id, known = false, applied = 0, batch = 0, held = 0,
            marks = 0, round = 0})
        meta.roster = meta.roster + 1
        fresh.members = true
    end
    record.j, record.lease, record.s = text, lease, cjson.decode(text).schema or 1
    if not meta.settled then
        meta.lease = math.max(meta.lease, lease)
        meta.heard = meta.heard or #knew > 0
        for _, other in ipairs(knew) do
            if not get('members', other) then
                meta.awaited[other] = true
            end
        end
        meta.awaited[id] = true
    end
    renew(record)
    return record
end

local function member_ids()
    local ids = {}
    for at, record in ipairs(get_all('members')) do
        ids[at] = json(record.id)
    end
    return json_list(ids)
end

local function pulse(record, beat)
    local knows = beat.epoch == meta.epoch
    local failures = changed_failures(knows and beat.since or 0)
    local settled = is_settled()
    local ids = knows and beat.roster == meta.roster and 'null' or member_ids()
    return string.format(
        '{"epoch":%s,"version":%d,"known":%s,"settled":%s,"held":%d,"roster":%d,"members":%s,"messages":%s,'
            .. '"schema":%d,%s}',
        json(meta.epoch), meta.rules, flag(record and record.known), flag(settled), record and record.held or 0,
        meta.roster, ids, record and messages(record.id) or '[]', SCHEMA, failures)
end
