-- Copies of what processes fetch for each other, and whose turn it is to fetch. The rules are those of
-- shared/copies.py.
--
-- A copy's record has n: serial; name; made; ends; size. Its JSON text stands by itself, in copy-texts. A turn's
-- record has n: serial; name; id: the member; ends.

local MOST_TEXT, MOST_TEXTS, MOST_COPIES, MOST_NAME = 4194304, 33554432, 256, 200
local LONGEST_COPY, LONGEST_TURN = 86400, 60
local COPIES_MS = 2000 * LONGEST_COPY

local function drop_copy(name)
    put('copies', name, false)
    later('HDEL', base .. 'copy-texts', name)
end

local function sweep_copies()
    for _, kind in ipairs({'turns', 'copies'}) do
        for _, record in ipairs(get_all(kind)) do
            if record.ends <= now then
                if kind == 'turns' then
                    put('turns', record.name, false)
                else
                    drop_copy(record.name)
                end
            end
        end
    end
end

local function number_of(kind)
    return #get_all(kind)
end

local function give_turn(id, name, seconds)
    put('turns', name, {n = serial(), name = name, id = id, ends = now + math.min(seconds, LONGEST_TURN)})
    later('PEXPIRE', base .. 'turns', COMMON_MS)
end

local function end_turns(id)
    for _, turn in ipairs(get_all('turns')) do
        if turn.id == id then
            put('turns', turn.name, false)
        end
    end
end

-- text: as JSON.
local function keep_copy(name, text, seconds, age)
    local made, ends = now - math.max(age, 0), now + math.min(seconds, LONGEST_COPY)
    put('copies', name, {n = serial(), name = name, made = made, ends = ends, size = #text - 2})
    later('HSET', base .. 'copy-texts', name, text)
    local copies, size = get_all('copies'), 0
    for _, copy in ipairs(copies) do
        size = size + copy.size
    end
    local count = #copies
    for _, copy in ipairs(copies) do
        if count <= MOST_COPIES and size <= MOST_TEXTS then
            break
        end
        drop_copy(copy.name)
        count, size = count - 1, size - copy.size
    end
    for _, key in ipairs({'copies', 'copy-texts'}) do
        later('PEXPIRE', base .. key, COPIES_MS)
    end
end
