-- Decides on sessions from their request to their end. The rules are those of shared/openings.py.
--
-- An entry has n: serial; m: member; q: serial of the member's record; s: id; j: JSON text of the session; u: user; c: console; i: who is held off;
-- t: whether it may take over; st: stage; p: policy; a: limits; e: whether it is ending; g: in which counts
-- another has its slot; x: the user that its member was told to expect; r: the publication that named it last.

local MOST_IN_WAY, MOST_WAITERS, MOST_MARKS_OF_MEMBER = 16, 256, 4096

local function new_entry(record, session, limits)
    return {
        n = serial(), m = record.id, q = record.n, s = session[1], j = session[2], u = session[3], c = session[4],
        i = session[5], t = session[6], st = 'waiting', p = 'passthrough', a = limits, e = false,
        g = {false, false, false}, r = record.round,
    }
end

-- Waiters

local function remove_waiter(waiters, entry)
    for at, one in ipairs(waiters) do
        if one[1] == entry.m and one[2] == entry.q and one[3] == entry.s then
            table.remove(waiters, at)
            return
        end
    end
end

local function add_waiter(waiters, newcomer)
    remove_waiter(waiters, newcomer)
    table.insert(waiters, {newcomer.m, newcomer.q, newcomer.s})
    if #waiters > MOST_WAITERS then
        table.remove(waiters, 1)
    end
end

local function stop_waiting(entry)
    remove_waiter(place_of(entry.c).w, entry)
    remove_waiter(count_of(entry.u).w, entry)
end

-- Tells those who wait for a console, or for a slot of a user, that something has changed.
local function wake(entry)
    local place, user, seen = place_of(entry.c), count_of(entry.u), {}
    for _, waiters in ipairs({place.w, user.w}) do
        for _, one in ipairs(waiters) do
            local key = one[2] .. ' ' .. one[3]
            if not seen[key] then
                seen[key] = true
                post(one[1], one[2], 'free', one[3])
            end
        end
    end
    place.w, user.w = {}, {}
end

-- Answers

local function decision(member, outcome, more)
    return '{"outcome":"' .. outcome .. '"' .. (more or '') .. ',"messages":' .. messages(member) .. '}'
end

-- Says that a newcomer has to wait, and has the members of those in its way look.
local function waiting(newcomer, in_way, ending, more)
    local refs = {}
    for at, other in ipairs(in_way) do
        if other.m ~= newcomer.m then
            tell(other, 'look')
        end
        refs[at] = string.format('{"member":%s,"session":%s}', json(other.m), json(other.s))
    end
    more = more .. ',"ending":' .. flag(ending) .. ',"in_way":' .. json_list(refs)
    return decision(newcomer.m, 'wait', more)
end

-- Admission

local function add_entry(entry, donor)
    put('sessions:' .. entry.m, entry.s, entry)
    table.insert(place_of(entry.c).l, ref_to(entry))
    local record, all = get('members', entry.m), count_of('')
    if record.held == 0 then
        fresh['sessions:' .. entry.m] = true
    end
    if all.n + all.g + all.f == 0 then
        fresh.places, fresh.users = true, true
    end
    record.held = record.held + 1
    take_slot(entry)
    if donor then
        give_slot(donor, {1, 2, 3})
    end
end

local function release(entry)
    local place = place_of(entry.c)
    stop_waiting(entry)
    give_up(entry)
    release_slot(entry)
    for at, ref in ipairs(place.l) do
        if ref.n == entry.n then
            table.remove(place.l, at)
            break
        end
    end
    put('sessions:' .. entry.m, entry.s, false)
    local record = get('members', entry.m)
    record.held = record.held - 1
    discard(entry.m, entry.s)
    wake(entry)
end

-- Refuses a newcomer; has it wait if somebody is about to make room, or may have left.
local function full(newcomer, may_wait, limit)
    local place, own = place_of(newcomer.c), {}
    for _, ref in ipairs(place.l) do
        local entry = ref.u == newcomer.u and there(ref)
        if entry and not entry.e and #own <= MOST_IN_WAY then
            own[#own + 1] = entry
        end
    end
    local ending = limit ~= 1 and counts_of(newcomer)[limit].e > 0
    local more = ',"limit":"' .. LIMITS[limit] .. '"'
    if not may_wait or not (#own > 0 or ending) then
        return decision(newcomer.m, 'full', more)
    end
    own[MOST_IN_WAY + 1] = nil
    add_waiter(place.w, newcomer)
    if limit == 2 then
        add_waiter(count_of(newcomer.u).w, newcomer)
    end
    return waiting(newcomer, own, ending, more)
end

-- Whether somebody is ending who has the console, or is to be looked at.
local function has_to_wait(newcomer, obstacle)
    local place = place_of(newcomer.c)
    if newcomer.p == 'passthrough' or not (place.h or place.c) then
        return false
    end
    local holder = there(place.h)
    return obstacle or (holder and (holder.e or holder.m == newcomer.m))
end

local function busy_for(reason, by)
    return ',"busy":"' .. reason .. '","by":' .. by
end

local function wait_for_console(newcomer, obstacle)
    local place, present, in_way = place_of(newcomer.c), {}, {}
    for _, ref in pairs({place.h or false, place.c or false}) do
        local entry = there(ref)
        if entry then
            present[#present + 1] = entry
            if not entry.e then
                in_way[#in_way + 1] = entry
            end
        end
    end
    add_waiter(place.w, newcomer)
    local more = busy_for(obstacle and obstacle[1] or 'in-use', obstacle and obstacle[2].u or present[1].u)
    return waiting(newcomer, in_way, #in_way < #present, more)
end

local function busy(newcomer, known, obstacle)
    if obstacle[1] == 'held-off' then
        hold_off(place_of(newcomer.c), newcomer.i)
    end
    if known then
        release(newcomer)
    end
    return decision(newcomer.m, 'busy', busy_for(obstacle[1], obstacle[2].u))
end

local function limit_for(newcomer, limits, donor, obstacle)
    if limits[1] == 0 and limits[2] == 0 and limits[3] == 0 then
        return nil
    end
    return limit_reached(limits, newcomer, donor, not obstacle and replaced_by(newcomer))
end

local function admit(record, session, policy, limits, may_wait)
    local known = entry_of(record.id, session[1])
    if known and known.st ~= 'waiting' then
        return decision(record.id, 'admitted')
    end
    local newcomer = known or new_entry(record, session, limits)
    newcomer.p = policy
    stop_waiting(newcomer)
    local obstacle = obstacle_for(newcomer)
    local donor = not known and donor_for(newcomer, limits)
    local limit = not known and limit_for(newcomer, limits, donor, obstacle)
    if limit then
        return full(newcomer, may_wait, limit)
    end
    local waits = may_wait and has_to_wait(newcomer, obstacle)
    if obstacle and not waits then
        return busy(newcomer, known, obstacle)
    end
    if not known then
        add_entry(newcomer, donor)
    end
    if waits then
        return wait_for_console(newcomer, obstacle)
    end
    newcomer.st = 'dialling'
    local more = is_free(newcomer) and ',"decided":true' or ''
    reach(newcomer)
    return decision(record.id, 'admitted', more)
end

-- The dial

-- Gives a console to a session, which inherits what it and the loser have in common.
local function take_console(winner)
    local loser = there(win(winner))
    wake(winner)
    if loser then
        give_slot(loser, inheritable(loser, winner, winner.a))
    end
end

local function opened(record, session)
    local entry = entry_of(record.id, session)
    if not entry or entry.st == 'waiting' or (entry.e and entry.st == 'dialling') then
        return false
    end
    local place = place_of(entry.c)
    if entry.p ~= 'passthrough' and not same(place.h, entry) then
        if not same(place.c, entry) then
            return false
        end
        take_console(entry)
    end
    entry.st = 'open'
    return true
end

-- What members report

local function unmark(record, session)
    local mark = get('marks:' .. record.id, session)
    if mark then
        put('marks:' .. record.id, session, false)
        record.marks = record.marks - 1
        remove_mark(place_of(mark.c), record.id, session)
    end
end

local function mark(record, session, console, by)
    local known = get('marks:' .. record.id, session)
    fresh.places, fresh['marks:' .. record.id] = true, true
    if known then
        known.c = console
    else
        put('marks:' .. record.id, session, {n = serial(), s = session, c = console})
        record.marks = record.marks + 1
    end
    add_mark(place_of(console), record.id, session, by)
    if record.marks > MOST_MARKS_OF_MEMBER then
        unmark(record, get_all('marks:' .. record.id)[1].s)
    end
end

local function note(entry, kind)
    if kind == 'released' then
        release(entry)
        return
    end
    end_slot(entry)
    if kind == 'given-up' then
        entry.p = 'passthrough'
        fail_slot(entry)
        give_up(entry)
    end
    wake(entry)
end

-- events: JSON list of kind, session, console, user.
local function apply(record, events)
    for _, event in ipairs(cjson.decode(events)) do
        local kind, session = event[1], event[2]
        if kind == 'mark' then
            mark(record, session, event[3], event[4])
        elseif kind == 'unmark' then
            unmark(record, session)
        elseif kind == 'opened' then
            if record.known then  -- else its publication says so
                opened(record, session)
            end
        else
            local entry = entry_of(record.id, session)
            if entry then
                note(entry, kind)
            elseif kind == 'released' then
                discard(record.id, session)
            end
        end
    end
end

-- What members publish

local function restore_claim(entry, policy)
    entry.p = policy
    local place = place_of(entry.c)
    if policy == 'passthrough' then
        give_up(entry)
    elseif same(place.c, entry) then
        if entry.st == 'open' then
            take_console(entry)
        end
    elseif entry.st == 'open' then
        if not place.h or place.h.m == entry.m then
            restore_holder(entry)
        end
    elseif entry.st == 'dialling' and not obstacle_for(entry) then
        reach(entry)
    end
end

-- held: the session, its stage, its policy, whether it is ending.
local function restore(record, held)
    local entry = entry_of(record.id, held[1])
    if entry then
        entry.r = record.round
    else
        entry = new_entry(record, held, {0, 0, 0})
        add_entry(entry)
    end
    entry.st = held[7]
    restore_claim(entry, held[8])
    if held[9] then
        end_slot(entry)
    end
end

local function release_unnamed(record)
    for _, entry in ipairs(get_all('sessions:' .. record.id)) do
        if entry.r ~= record.round then
            release(entry)
        end
    end
end

-- Releases all that a member holds.
local function forget(record)
    for _, entry in ipairs(get_all('sessions:' .. record.id)) do
        release(entry)
    end
    for _, one in ipairs(get_all('marks:' .. record.id)) do
        unmark(record, one.s)
    end
end
