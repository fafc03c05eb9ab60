-- member
begin()
advance()
end_turns(ARGV[3])
local record = get('members', ARGV[3])
if record then
    remove(record)
end
return finish('null')
