-- Returns UNIX time as Redis knows it: seconds, and microseconds. Tests have another one.
local function read_clock()
    return redis.call('TIME')
end
