begin()
advance()
local texts = {}
for at, record in ipairs(get_all('members')) do
    texts[at] = record.j
end
return finish(json_list(texts))
