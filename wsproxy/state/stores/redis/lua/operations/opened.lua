-- member, session
begin()
asker = ARGV[3]
advance()
local record = get('members', asker)
if not record then
    return finish(string.format('{"admitted":false,"version":%d,"known":false}', meta.rules))
end
local admitted = record.known and opened(record, ARGV[4])
return finish(string.format(
    '{"admitted":%s,"version":%d,"messages":%s,"known":%s}', flag(admitted), meta.rules, messages(asker),
    flag(record.known)))
