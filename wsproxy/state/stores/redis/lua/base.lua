-- What all scripts share: the time, the records that a script reads and changes, and how they are written.
--
-- SCHEMA   the version of the schema that the script speaks.
-- KEYS[1]  begins the names of its keys: prefix and hash tag, SCHEMA.
-- ARGV[1]  run id of the server, as the connection's client was told.
-- ARGV[2]  the newest schema that the process knows, a dot, and a random text: the name of an epoch that begins now.
-- ARGV[3]  and the rest: the arguments of the operation.
--
-- A script reads and decides first, and writes at its end. So an error leaves nothing half done. If Redis has no
-- memory left, it refuses the first write of a script, and no later one.

local base = KEYS[1]
local root = string.sub(base, 1, -2 - #tostring(SCHEMA))
local common = root .. '0:'  -- begins the names that are the same in every schema
local COMMON_MS = 600000  -- what no member has renewed for so long is void; longer than any lease
local OWN_MS = 2 * COMMON_MS  -- so that what a member has outlives what the others know of it
local META_MS = 400 * 86400000
local CHUNK = 1000  -- arguments of one command; Lua has a bound
local INF = math.huge

local meta  -- the epoch, and all counters
local now, wall  -- seconds: the store's clock, which never goes back; UNIX time
local asker = ''  -- the member that gets the answer
local cells = {}  -- by hash and field: what was read, and what it is to be
local writes = {}  -- other commands, for the end
local dropped = {}  -- members whose own keys go
local mail = {}  -- by member and box: texts, or false for what goes
local fresh = {}  -- hashes that this script may make, so that they get a lifetime
local told = {}  -- channels that get a notification

local function later(...)
    writes[#writes + 1] = {...}
end

-- Records: values in hashes. A missing one is false.

local function get(name, field)
    local hash = cells[name]
    if not hash then
        hash = {}
        cells[name] = hash
    end
    local cell = hash[field]
    if not cell then
        local raw = redis.call('HGET', base .. name, field)
        cell = {raw = raw, value = raw and cmsgpack.unpack(raw)}
        hash[field] = cell
    end
    return cell.value
end

local function put(name, field, value)
    get(name, field)
    cells[name][field].value = value
    return value
end

-- Reads all of a hash, and returns what it is to be now.
local function get_all(name)
    local hash = cells[name] or {}
    cells[name] = hash
    local flat = redis.call('HGETALL', base .. name)
    for at = 1, #flat, 2 do
        if not hash[flat[at]] then
            hash[flat[at]] = {raw = flat[at + 1], value = cmsgpack.unpack(flat[at + 1])}
        end
    end
    local found = {}
    for _, cell in pairs(hash) do
        if cell.value then
            found[#found + 1] = cell.value
        end
    end
    table.sort(found, function(one, other) return one.n < other.n end)
    return found
end

-- Forgets all records of a hash; its key goes at the end.
local function drop_all(name)
    get_all(name)
    for _, cell in pairs(cells[name]) do
        cell.raw, cell.value = nil, false
    end
end

local function is_empty(name, value)
    if name == 'users' then
        return value.n == 0 and value.g == 0 and value.f == 0 and #value.w == 0
    end
    return name == 'places' and #value.l == 0 and #value.k == 0
end

local function write_hash(name, hash)
    local key = base .. name
    for field, cell in pairs(hash) do
        local value = cell.value
        if not value or is_empty(name, value) then
            if cell.raw then
                redis.call('HDEL', key, field)
            end
        else
            local raw = cmsgpack.pack(value)
            if raw ~= cell.raw then
                redis.call('HSET', key, field, raw)
            end
        end
    end
    if fresh[name] then
        redis.call('PEXPIRE', key, string.find(name, ':', 1, true) and OWN_MS or COMMON_MS)
    end
end

-- Calls a command with a key and many names, some at a time.
local function in_chunks(names, command, key, decorate)
    for from = 1, #names, CHUNK do
        local some = {}
        for at = from, math.min(from + CHUNK - 1, #names) do
            some[#some + 1] = decorate and decorate(names[at]) or names[at]
        end
        redis.call(command, key, unpack(some))
    end
end

local function write_mail()
    for id, boxes in pairs(mail) do
        local key, gone, changed = base .. 'mail:' .. id, {}, false
        for box, text in pairs(boxes) do
            if text then
                redis.call('HSET', key, box, text)
                changed = true
            else
                gone[#gone + 1] = box
            end
        end
        in_chunks(gone, 'HDEL', key)
        if changed then
            redis.call('PEXPIRE', key, OWN_MS)
        end
    end
end

-- Writes all that has changed, and returns the answer.
local function finish(answer)
    redis.call('SET', base .. 'meta', cmsgpack.pack(meta), 'PX', META_MS)
    for id in pairs(dropped) do
        redis.call('DEL', base .. 'sessions:' .. id, base .. 'marks:' .. id, base .. 'mail:' .. id)
    end
    for name, hash in pairs(cells) do
        write_hash(name, hash)
    end
    write_mail()
    for _, command in ipairs(writes) do
        redis.call(unpack(command))
    end
    for channel in pairs(told) do
        redis.call('PUBLISH', common .. channel, '')
    end
    return answer
end

local function last_version(key)
    return tonumber(redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2] or 0)
end

-- Makes the counters of a store that has none. What there is of sessions is of no use without them.
local function new_meta()
    for _, name in ipairs({'places', 'users', 'members', 'expiry', 'tickets', 'ticket-times', 'ticket-users'}) do
        redis.call('DEL', base .. name)
    end
    return {
        run = ARGV[1], epoch = ARGV[2], begun = wall, settled = false, lease = 0, heard = false, awaited = {},
        roster = 1, numbers = 0, serial = 0, last = wall, shift = 0,
        rules = last_version(common .. 'rule-versions'), failures = last_version(base .. 'failure-versions'),
    }
end

-- Ends the script: the process goes on with the script of that schema.
local function refer_to(schema)
    error('wsproxy-schema=' .. schema, 0)
end

-- Has all processes use a schema from now on. An epoch begins: what it has is from an earlier use.
local function move_to(schema)
    redis.call('SET', common .. 'schema', schema, 'PX', META_MS)
    redis.call('DEL', root .. schema .. ':meta')
    redis.call('PUBLISH', common .. 'news', '')
end

-- The schema in use is the newest that all living processes know. Who knows only older ones brings it down at once.
local function check_schema()
    local used = tonumber(redis.call('GET', common .. 'schema'))
    if used == SCHEMA then
        return
    end
    local newest = tonumber(string.match(ARGV[2], '^%d+'))
    if used and used < newest then
        refer_to(used)
    elseif SCHEMA ~= newest then
        refer_to(newest)
    end
    move_to(newest)
end

local function start()
    check_schema()
    local time = read_clock()
    wall = time[1] + time[2] / 1000000
    local raw = redis.call('GET', base .. 'meta')
    if raw then
        meta = cmsgpack.unpack(raw)
    else
        meta = new_meta()
    end
    now = wall + meta.shift
    if now < meta.last then
        meta.shift = meta.shift + meta.last - now
        now = meta.last
    end
    meta.last = now
end

local function serial()
    meta.serial = meta.serial + 1
    return meta.serial
end

-- JSON. Users, sessions and rules come and go as text, which nothing here needs to understand.

local json = cjson.encode

local function json_list(texts)
    return '[' .. table.concat(texts, ',') .. ']'
end

local function flag(value)
    return value and 'true' or 'false'
end
