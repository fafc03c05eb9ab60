-- member, session, code, reason
begin()
advance()
local record = get('members', ARGV[3])
local entry = record and entry_of(ARGV[3], ARGV[4])
if entry then
    tell(entry, 'end', nil, tonumber(ARGV[5]), ARGV[6])
end
return finish(flag(entry))
