-- rules
begin()
local rules, new = cjson.decode(ARGV[3]), 0
sweep_rules()
for _, rule in ipairs(rules) do
    local id = rule[5] == 'null' and lift_id(rule[2]) or rule[1]
    new = new + 1 - redis.call('HEXISTS', common .. 'rules', id)
end
if redis.call('HLEN', common .. 'rules') + new > MOST_RULES then
    return finish(revoked(false))
end
merge_rules(rules)
return finish(revoked(true))
