-- member, session
begin()
asker = ARGV[3]
advance()
local record = get('members', asker)
if not record then
    return finish('{"again":false}')
end
local entry = entry_of(asker, ARGV[4])
local again = entry and evict(entry)
return finish(string.format('{"again":%s,"messages":%s}', flag(again), messages(asker)))
