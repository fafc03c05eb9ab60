-- Messages for members, kept until they are acknowledged; a later one of the same kind replaces an earlier one.

local BOXES = {'end', 'lost', 'expect', 'look', 'free'}

local function boxes_of(id)
    local boxes = mail[id]
    if not boxes then
        boxes = {}
        mail[id] = boxes
    end
    return boxes
end

-- which: serial of the member's record; it may have gone, and come again. by: JSON text of a user, or nil.
local function post(id, which, kind, session, by, code, reason)
    local record = get('members', id)
    meta.numbers = meta.numbers + 1
    if not record or record.n ~= which then
        return
    end
    local box = kind == 'keep' and 'expect' or kind
    boxes_of(id)[session .. '\n' .. box] = string.format(
        '{"number":%d,"kind":"%s","session":%s,"code":%d,"reason":%s,"by":%s}',
        meta.numbers, kind, json(session), code or 0, json(reason or ''), by or 'null')
    if id ~= asker then
        told['news:' .. id] = true
    end
end

local function tell(entry, kind, by, code, reason)
    post(entry.m, entry.q, kind, entry.s, by, code, reason)
end

local function number_of(text)
    return tonumber(string.match(text, '^{"number":(%d+)'))
end

-- Returns what there is for a member by box, as it will be after this script.
local function open_mail(id)
    local found = {}
    if not dropped[id] then
        local flat = redis.call('HGETALL', base .. 'mail:' .. id)
        for at = 1, #flat, 2 do
            found[flat[at]] = flat[at + 1]
        end
    end
    for box, text in pairs(mail[id] or {}) do
        found[box] = text or nil
    end
    return found
end

local function messages(id)
    local texts, numbers = {}, {}
    for _, text in pairs(open_mail(id)) do
        texts[#texts + 1] = text
        numbers[text] = number_of(text)
    end
    table.sort(texts, function(one, other) return numbers[one] < numbers[other] end)
    return json_list(texts)
end

local function acknowledge(id, number)
    for box, text in pairs(open_mail(id)) do
        if number_of(text) <= number then
            boxes_of(id)[box] = false
        end
    end
end

-- Forgets what there is for a session that has been released.
local function discard(id, session)
    local boxes = boxes_of(id)
    for _, box in ipairs(BOXES) do
        boxes[session .. '\n' .. box] = false
    end
end
