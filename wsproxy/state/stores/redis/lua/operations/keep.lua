-- member, name, JSON text of the text or null, seconds, age
begin()
advance()
sweep_copies()
local name, text = ARGV[4], ARGV[5]
local turn = get('turns', name)
if turn and turn.id == ARGV[3] then
    put('turns', name, false)
    if text ~= 'null' and #text - 2 <= MOST_TEXT then
        keep_copy(name, text, tonumber(ARGV[6]), tonumber(ARGV[7]))
    end
end
return finish('null')
