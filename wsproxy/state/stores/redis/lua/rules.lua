-- Revocation rules. Which rule counts is decided as in RuleSet of revocations.py, the rest as in shared/rule_log.py.
--
-- A record has k: kick; a, u: texts of when it was made and when it ends; m: JSON text of the match, null for a
-- lift; n: JSON text of the maker; o: text by which two versions of one rule are ordered; v: version.
--
-- The keys are the same in every schema, so that a rule outlives all processes of the schema in which it was made.

local MOST_RULES, KEPT = 100000, 3600

local function number(text)
    return text == '"inf"' and INF or tonumber(text)
end

-- Byte by byte: the operator < goes by the server's locale.
local function is_less(one, other)
    for at = 1, math.min(#one, #other) do
        local a, b = string.byte(one, at), string.byte(other, at)
        if a ~= b then
            return a < b
        end
    end
    return #one < #other
end

local function read_rule(id)
    local raw = redis.call('HGET', common .. 'rules', id)
    return raw and cmsgpack.unpack(raw)
end

-- Forgets rules: pairs of kick and id, joined by a line feed.
local function drop_rules(keys)
    local function id_of(key)
        return string.match(key, '\n(.*)$')
    end
    in_chunks(keys, 'ZREM', common .. 'rule-kicks')
    in_chunks(keys, 'HDEL', common .. 'rules', id_of)
    in_chunks(keys, 'ZREM', common .. 'rule-versions', id_of)
    in_chunks(keys, 'ZREM', common .. 'rule-ends', id_of)
end

-- The kick's rules that are in force; the lift, if there is one, is not among them.
local function keys_of(kick)
    return redis.call('ZRANGEBYLEX', common .. 'rule-kicks', '[' .. kick .. '\n', '(' .. kick .. '\11')
end

local function lift_id(kick)
    return kick .. '.lift'
end

local function write_rule(id, rule)
    meta.rules = meta.rules + 1
    rule.v = meta.rules
    redis.call('HSET', common .. 'rules', id, cmsgpack.pack(rule))
    redis.call('ZADD', common .. 'rule-versions', meta.rules, id)
    local ends = number(rule.u)
    redis.call('ZADD', common .. 'rule-ends', ends == INF and '+inf' or ends, id)
    if rule.m ~= 'null' then
        redis.call('ZADD', common .. 'rule-kicks', 0, rule.k .. '\n' .. id)
    end
    told.news = true
end

-- Returns what two versions of a rule come to; nil if that is the known one.
local function joined_rule(known, rule)
    local best = is_less(known.o, rule.o) and rule or known
    local made = number(rule.a) > number(known.a) and rule.a or known.a
    local ends = number(rule.u) > number(known.u) and rule.u or known.u
    if best == known and made == known.a and ends == known.u then
        return nil
    end
    return {k = best.k, a = made, u = ends, m = best.m, n = best.n, o = best.o}
end

-- rule: id, kick, made_at, until, match, maker, order.
local function add_rule(rule)
    local kick, is_lift = rule[2], rule[5] == 'null'
    local id = is_lift and lift_id(kick) or rule[1]
    local new = {k = kick, a = rule[3], u = rule[4], m = rule[5], n = rule[6], o = rule[7]}
    if is_lift then
        drop_rules(keys_of(kick))
    elseif redis.call('HEXISTS', common .. 'rules', lift_id(kick)) == 1 then
        return
    end
    local known = read_rule(id)
    if known then
        new = joined_rule(known, new)
        if new and known.k ~= new.k then
            redis.call('ZREM', common .. 'rule-kicks', known.k .. '\n' .. id)
        end
    end
    if new then
        write_rule(id, new)
    end
end

-- Forgets what has been over for an hour.
local function sweep_rules()
    local over = redis.call('ZRANGEBYSCORE', common .. 'rule-ends', '-inf', wall - KEPT)
    if #over == 0 then
        return
    end
    local keys = {}
    for at, id in ipairs(over) do
        local rule = read_rule(id)
        keys[at] = (rule and rule.k or '') .. '\n' .. id
    end
    drop_rules(keys)
end

-- Keeps the keys as long as the last rule, and its members' memory of it, need.
local function keep_rules()
    local last = redis.call('ZREVRANGE', common .. 'rule-ends', 0, 0, 'WITHSCORES')[2]
    for _, name in ipairs({'rules', 'rule-versions', 'rule-ends', 'rule-kicks'}) do
        if last == 'inf' then
            redis.call('PERSIST', common .. name)
        elseif last then
            local left = math.max(tonumber(last) + 2 * KEPT - wall, 1)
            redis.call('PEXPIRE', common .. name, string.format('%d', math.min(left, 1e9) * 1000))
        end
    end
end

local function merge_rules(rules)
    for _, rule in ipairs(rules) do
        add_rule(rule)
    end
    if #rules > 0 then
        sweep_rules()
        keep_rules()
    end
end

local function revoked(done)
    return string.format('{"done":%s,"version":%d}', flag(done), meta.rules)
end

local function rule_text(id, rule)
    return string.format('{"id":%s,"kick":%s,"made_at":%s,"until":%s,"match":%s,"maker":%s}',
        json(id), json(rule.k), rule.a, rule.u, rule.m, rule.n)
end
