-- member, id after which the page begins
begin()
advance()
local ids = {}
if get('members', ARGV[3]) then
    for _, id in ipairs(redis.call('HKEYS', base .. 'sessions:' .. ARGV[3])) do
        if id > ARGV[4] then
            ids[#ids + 1] = id
        end
    end
end
table.sort(ids)
local texts = {}
for at = 1, math.min(#ids, PAGE) do
    local entry = entry_of(ARGV[3], ids[at])
    texts[at] = string.format('{"session":%s,"stage":"%s","policy":"%s","ending":%s}',
        entry.j, entry.st, entry.p, flag(entry.e))
end
return finish(string.format('{"sessions":%s,"after":%s}', json_list(texts), json(#ids > PAGE and ids[PAGE] or '')))
