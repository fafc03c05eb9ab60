-- Almost every session that opens leaves the console to KubeVirt, and nothing else has to be decided or told then.
do
    local base, id = KEYS[1], ARGV[3]
    local common = string.sub(base, 1, -2 - #tostring(SCHEMA)) .. '0:'
    local meta = tonumber(redis.call('GET', common .. 'schema')) == SCHEMA and redis.call('GET', base .. 'meta')
    meta = meta and cmsgpack.unpack(meta)
    local time = read_clock()
    local now = meta and time[1] + time[2] / 1000000 + meta.shift
    if meta and meta.run == ARGV[1] and now >= meta.last
        and not redis.call('ZRANGEBYSCORE', base .. 'expiry', '-inf', now, 'LIMIT', 0, 1)[1]
        and redis.call('HLEN', base .. 'mail:' .. id) == 0 then
        local record = redis.call('HGET', base .. 'members', id)
        local entry = redis.call('HGET', base .. 'sessions:' .. id, ARGV[4])
        entry = entry and cmsgpack.unpack(entry)
        if record and cmsgpack.unpack(record).known
            and entry and entry.p == 'passthrough' and entry.st == 'dialling' and not entry.e then
            entry.st = 'open'
            redis.call('HSET', base .. 'sessions:' .. id, ARGV[4], cmsgpack.pack(entry))
            return string.format('{"admitted":true,"version":%d,"known":true}', meta.rules)
        end
    end
end
