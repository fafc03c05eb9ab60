-- version of the rules
begin()
advance()
local texts = {}
for _, record in ipairs(get_all('members')) do
    if record.applied < tonumber(ARGV[3]) then
        texts[#texts + 1] = record.j
    end
end
return finish(json_list(texts))
