-- member, events
begin()
asker = ARGV[3]
advance()
local record = get('members', asker)
if not record then
    return finish('[]')
end
apply(record, ARGV[4])
return finish(messages(asker))
