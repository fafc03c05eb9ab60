-- Almost every session that opens finds the console free. Nothing has to be decided then, and nobody has to be told.
do
    local base, id = KEYS[1], ARGV[3]
    local common = string.sub(base, 1, -2 - #tostring(SCHEMA)) .. '0:'

    -- Returns the record in a hash, or nil.
    local function read(name, field)
        local raw = redis.call('HGET', base .. name, field)
        return raw and cmsgpack.unpack(raw) or nil
    end

    local function write(name, field, value)
        redis.call('HSET', base .. name, field, cmsgpack.pack(value))
    end

    -- Whether the entry's console is free but for the entry's own claim, and nobody waits for anything.
    local function is_free(entry, place, user)
        return place and user and place.c and place.c.n == entry.n and not (place.h or place.t or place.v)
            and #place.k == 0 and #place.w == 0 and #user.w == 0 and not entry.x
    end

    local meta = tonumber(redis.call('GET', common .. 'schema')) == SCHEMA and redis.call('GET', base .. 'meta')
    meta = meta and cmsgpack.unpack(meta)
    local time = read_clock()
    local now = meta and time[1] + time[2] / 1000000 + meta.shift
    if meta and meta.run == ARGV[1] and now >= meta.last
        and not redis.call('ZRANGEBYSCORE', base .. 'expiry', '-inf', now, 'LIMIT', 0, 1)[1]
        and redis.call('HLEN', base .. 'mail:' .. id) == 0 then
        local record, entry = read('members', id), read('sessions:' .. id, ARGV[4])
        if record and record.known and entry and entry.st == 'dialling' and not entry.e then
            local has_claim = entry.p ~= 'passthrough'
            local place = has_claim and read('places', entry.c)
            if not has_claim or is_free(entry, place, read('users', entry.u)) then
                if has_claim then
                    place.c, place.h = nil, place.c
                    write('places', entry.c, place)
                end
                entry.st = 'open'
                write('sessions:' .. id, ARGV[4], entry)
                return string.format('{"admitted":true,"version":%d,"known":true}', meta.rules)
            end
        end
    end
end
