-- member, name, oldest age, seconds of a turn
begin()
advance()
sweep_copies()
local id, name = ARGV[3], ARGV[4]
local copy = get('copies', name)
if copy and now - copy.made <= tonumber(ARGV[5]) then
    local text = redis.call('HGET', base .. 'copy-texts', name)
    return finish(string.format('{"age":%.14g,"text":', now - copy.made) .. text .. '}')
end
local turn = get('turns', name)
if turn and turn.id ~= id then
    return finish('{}')
end
if turn or (number_of('turns') < MOST_COPIES and #name <= MOST_NAME) then
    give_turn(id, name, tonumber(ARGV[6]))
end
return finish('{"is_turn":true}')
