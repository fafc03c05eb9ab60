-- member, its JSON text, lease, part, whether it is the last, sessions, rules, members it knew
begin()
asker = ARGV[3]
advance()
local record = join(asker, ARGV[4], tonumber(ARGV[5]), cjson.decode(ARGV[10]))
if ARGV[6] == '0' then
    record.known = false
    record.round = serial()
end
for _, held in ipairs(cjson.decode(ARGV[8])) do
    restore(record, held)
end
merge_rules(cjson.decode(ARGV[9]))
if ARGV[7] == '1' then
    release_unnamed(record)
    record.known = true
    meta.awaited[asker] = nil
end
keep(record)
return finish(pulse(record, {epoch = '', roster = 0, since = 0}))
