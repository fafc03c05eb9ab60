-- kick, JSON text of the time, the end of an endless rule's lift, maker, order
begin()
local kick, ends = ARGV[3], nil
for _, key in ipairs(keys_of(kick)) do
    local rule = read_rule(string.match(key, '\n(.*)$'))
    if not ends or number(rule.u) > number(ends) then
        ends = rule.u
    end
end
if not ends then
    return finish(revoked(redis.call('HEXISTS', common .. 'rules', lift_id(kick)) == 1))
end
merge_rules({{lift_id(kick), kick, ARGV[4], number(ends) == INF and ARGV[5] or ends, 'null', '""', ARGV[6]}})
return finish(revoked(true))
