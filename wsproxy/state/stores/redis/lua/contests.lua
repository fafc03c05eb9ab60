-- Who keeps a console that several sessions want. The rules are those of shared/contests.py.
--
-- A place has, beside its count: l: all sessions, w: waiters, h: holder, c: challenger, t: target, v: evicted,
-- o: losers with the end of their hold-off, k: marks. Sessions are references, which outlive their entries.

local HOLD_OFF, MOMENTS = 30, 5
local MOST_MARKS, MOST_LOSERS, MOST_ENDED = 16, 64, 65536
local ended = {}  -- by console: what this script has noted itself

local function replaced_by(newcomer)
    return newcomer.p == 'takeover' and there(place_of(newcomer.c).h) or nil
end

local function held_off_until(place, identity)
    for _, loser in ipairs(place.o) do
        if loser[1] == identity then
            return loser[2]
        end
    end
    return now
end

-- Returns why a newcomer cannot have its console, and a reference to who is in the way; nil if it can.
local function obstacle_for(newcomer)
    local place = place_of(newcomer.c)
    local other = place.h or place.c
    if newcomer.p == 'passthrough' or not other then
        return nil
    end
    if newcomer.p == 'refuse' or not place.h or not newcomer.t then
        return {'in-use', other}
    end
    if place.c then
        return {'being-taken', place.c}
    end
    if held_off_until(place, newcomer.i) > now then
        return {'held-off', other}
    end
end

-- Whether a newcomer without an obstacle gets its console for sure, and nobody has to learn it at once.
local function is_free(newcomer)
    local place = place_of(newcomer.c)
    return newcomer.p == 'passthrough' or not (place.h or place.c) and #place.k == 0 and #place.w == 0
end

local function hold_off(place, identity)
    for at, loser in ipairs(place.o) do
        if loser[1] == identity then
            table.remove(place.o, at)
            break
        end
    end
    table.insert(place.o, {identity, now + HOLD_OFF})
    if #place.o > MOST_LOSERS then
        table.remove(place.o, 1)
    end
end

-- Tells who has the console what a loss means now, if that has changed.
local function expect(place)
    local holder = there(place.h)
    if not holder then
        return
    end
    local last = place.k[#place.k]
    local by = last and last[3] ~= 'null' and last[3] or nil
    if place.c and (same(holder, place.t) or same(holder, place.v)) then
        by = place.c.u
    end
    if by ~= holder.x then
        holder.x = by
        tell(holder, by and 'expect' or 'keep', by)
    end
end

local function reach(newcomer)
    if newcomer.p ~= 'passthrough' then
        local place, loser = place_of(newcomer.c), replaced_by(newcomer)
        place.c, place.t, place.v = ref_to(newcomer), loser and ref_to(loser), nil
        expect(place)
    end
end

-- Gives a console to a session that had it before.
local function restore_holder(entry)
    local place = place_of(entry.c)
    place.h = ref_to(entry)
    local challenger = there(place.c)
    if challenger and not place.t and replaced_by(challenger) then
        place.t = place.h
    end
    expect(place)
end

-- Tells the one who loses the console, and holds its client off.
local function lose(place, challenger)
    local loser = place.t
    place.t = nil
    hold_off(place, loser.i)
    tell(loser, 'lost', challenger.u)
    return loser
end

local function evict(challenger)
    local place = place_of(challenger.c)
    if same(place.c, challenger) then
        if place.t then
            place.v = lose(place, challenger)
            return true
        end
        if same(place.h, place.v) then
            return true
        end
    end
    local since = ended[challenger.c] or redis.call('ZSCORE', base .. 'ended', challenger.c)
    return #place.k > 0 or (since and tonumber(since) + MOMENTS > now or false)
end

-- Gives the console to the one that reaches for it; returns a reference to who has lost it.
local function win(challenger)
    local place = place_of(challenger.c)
    if not (same(place.h, place.v) or (not place.h and not place.v)) then
        place.t = place.t or place.h
    end
    local loser = place.v
    if place.t then
        loser = lose(place, challenger)
    end
    place.c, place.h, place.v = nil, ref_to(challenger), nil
    expect(place)
    return loser
end

local function note_end(console)
    ended[console] = now
    later('ZADD', base .. 'ended', now, console)
    later('PEXPIRE', base .. 'ended', COMMON_MS)
end

-- Forgets those that have ended too long ago to matter, and the oldest if there are too many.
local function sweep_ended()
    later('ZREMRANGEBYSCORE', base .. 'ended', '-inf', now - MOMENTS)
    later('ZREMRANGEBYRANK', base .. 'ended', 0, -MOST_ENDED - 1)
end

local function give_up(entry)
    local place = place_of(entry.c)
    if same(place.c, entry) then
        place.c, place.t, place.v = nil, nil, nil
    elseif same(place.h, entry) then
        place.h = nil
        note_end(entry.c)
    else
        return
    end
    if not place.h and not place.c then
        place.o = {}
    end
    expect(place)
end

local function mark_at(place, member, session)
    for at, mark in ipairs(place.k) do
        if mark[1] == member and mark[2] == session then
            return at
        end
    end
end

local function add_mark(place, member, session, by)
    local at = mark_at(place, member, session)
    if at then
        place.k[at][3] = by
    else
        if #place.k >= MOST_MARKS then
            table.remove(place.k, 1)
        end
        table.insert(place.k, {member, session, by})
    end
    expect(place)
end

local function remove_mark(place, member, session)
    local at = mark_at(place, member, session)
    if at then
        table.remove(place.k, at)
        expect(place)
    end
end
