-- member, events, session (id, JSON text, user, console, who is held off, whether it may take over), policy,
-- three limits, whether it may wait
begin()
asker = ARGV[3]
advance()
local record = get('members', asker)
if not record then
    return finish('{"outcome":"unsettled"}')
end
if ARGV[4] ~= '[]' then
    apply(record, ARGV[4])
end
if not record.known or not is_settled() then
    return finish(decision(asker, 'unsettled'))
end
local session = {ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10] == '1'}
local limits = {tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])}
return finish(admit(record, session, ARGV[11], limits, ARGV[15] == '1'))
