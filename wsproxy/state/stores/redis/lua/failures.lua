-- Failed attempts of the networks that fail often. The rules are those of shared/failures.py.

local PAGE = 1000
local LONGEST, MOST_FAILURES = 120, 65536
local FAILURES_MS = 2 * LONGEST * 1000

local function full_at(bucket)
    return tonumber(redis.call('HGET', base .. 'failures', bucket) or now)
end

-- failures: JSON list of bucket and seconds.
local function push_failures(failures)
    local hash, versions, new = base .. 'failures', base .. 'failure-versions', cjson.decode(failures)
    for _, failure in ipairs(new) do
        local bucket = failure[1]
        local later_full = math.max(full_at(bucket), now) + math.max(failure[2], 0)
        meta.failures = meta.failures + 1
        redis.call('HSET', hash, bucket, math.min(later_full, now + LONGEST))
        redis.call('ZADD', versions, meta.failures, bucket)
    end
    local size = redis.call('HLEN', hash)
    while size > 0 do
        local oldest = redis.call('ZRANGE', versions, 0, 0)[1]
        if full_at(oldest) > now and size <= MOST_FAILURES then
            break
        end
        redis.call('ZREM', versions, oldest)
        redis.call('HDEL', hash, oldest)
        size = size - 1
    end
    if #new > 0 then
        redis.call('PEXPIRE', hash, FAILURES_MS)
        redis.call('PEXPIRE', versions, FAILURES_MS)
    end
end

local function changed_failures(since)
    local texts, version = {}, meta.failures
    if since ~= meta.failures then
        local found = redis.call('ZRANGEBYSCORE', base .. 'failure-versions', '(' .. since, '+inf', 'WITHSCORES',
            'LIMIT', 0, PAGE + 1)
        if #found > 2 * PAGE then
            version = tonumber(found[2 * PAGE])
        end
        for at = 1, math.min(#found, 2 * PAGE), 2 do
            local seconds = math.max(full_at(found[at]) - now, 0)
            texts[#texts + 1] = string.format('{"bucket":%s,"seconds":%.14g}', json(found[at]), seconds)
        end
    end
    return string.format('"failures":%s,"failures_version":%d', json_list(texts), version)
end
