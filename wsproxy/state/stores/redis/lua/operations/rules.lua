-- version since which they have changed
begin()
local found = redis.call('ZRANGEBYSCORE', common .. 'rule-versions', '(' .. ARGV[3], '+inf', 'WITHSCORES',
    'LIMIT', 0, PAGE + 1)
local more, version, texts = #found > 2 * PAGE, meta.rules, {}
if more then
    version = tonumber(found[2 * PAGE])
end
for at = 1, math.min(#found, 2 * PAGE), 2 do
    texts[#texts + 1] = rule_text(found[at], read_rule(found[at]))
end
return finish(string.format('{"epoch":%s,"version":%d,"rules":%s,"more":%s}',
    json(meta.epoch), version, json_list(texts), flag(more)))
