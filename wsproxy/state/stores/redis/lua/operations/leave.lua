-- member
begin()
advance()
local record = get('members', ARGV[3])
if record then
    remove(record)
end
return finish('null')
