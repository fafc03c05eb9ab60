-- How many sessions there may be. The rules are those of shared/slots.py.
--
-- A count has n: those that count; e: those of them that are ending; g: those that gave their slot away;
-- f: those whose opening was given up. An entry's g is for each count 'g', 'f' or false.

local LIMITS = {'sessions', 'user', 'vmi'}

local function count_of(user)
    return get('users', user) or put('users', user, {n = 0, e = 0, g = 0, f = 0, w = {}})
end

local function place_of(console)
    return get('places', console) or put('places', console, {n = 0, e = 0, g = 0, f = 0, l = {}, w = {}, o = {}, k = {}})
end

local function entry_of(member, session)
    return get('sessions:' .. member, session)
end

-- Returns the entry that a reference names, if that is still there.
local function there(ref)
    local entry = ref and entry_of(ref.m, ref.s)
    return entry and entry.n == ref.n and entry or nil
end

local function same(one, other)
    return one and other and one.n == other.n or false
end

local function ref_to(entry)
    return {n = entry.n, m = entry.m, q = entry.q, s = entry.s, u = entry.u, i = entry.i}
end

-- Of all sessions, of those of the user, of those with the console. No user is named ''.
local function counts_of(entry)
    return {count_of(''), count_of(entry.u), place_of(entry.c)}
end

-- Returns in which counts a newcomer may have the slot of a session with the same console.
local function inheritable(donor, newcomer, limits)
    local found, counts = {}, counts_of(donor)
    for at = donor.u == newcomer.u and 1 or 3, 3 do
        if not donor.g[at] and counts[at].g < (limits[at] > 0 and limits[at] or INF) then
            found[#found + 1] = at
        end
    end
    return found
end

local function donor_for(newcomer, limits)
    local place = place_of(newcomer.c)
    if place.e == 0 then
        return nil
    end
    for _, ref in ipairs(place.l) do
        local entry = ref.u == newcomer.u and there(ref)
        if entry and entry.e and #inheritable(entry, newcomer, limits) == 3 then
            return entry
        end
    end
end

local function limit_reached(limits, newcomer, donor, replaced)
    local inherited = {0, 0, 0}
    for _, other in pairs({donor or nil, replaced or nil}) do
        for _, at in ipairs(inheritable(other, newcomer, limits)) do
            inherited[at] = 1
        end
    end
    for at, count in ipairs(counts_of(newcomer)) do
        local here = count.n - inherited[at]
        if at == 1 and inherited[at] == 0 then
            here = here + count.g
        end
        if limits[at] > 0 and here >= limits[at] then
            return at
        end
    end
end

local function take_slot(entry)
    for _, count in ipairs(counts_of(entry)) do
        count.n = count.n + 1
    end
end

local function end_slot(entry)
    if entry.e then
        return
    end
    entry.e = true
    for at, count in ipairs(counts_of(entry)) do
        if not entry.g[at] then
            count.e = count.e + 1
        end
    end
end

-- An opening was given up: it leaves its slot to anybody.
local function fail_slot(entry)
    for at, count in ipairs(counts_of(entry)) do
        local most = entry.a[at] > 0 and entry.a[at] or INF
        if not entry.g[at] and count.f < most then
            count.n, count.e, count.f = count.n - 1, count.e - 1, count.f + 1
            entry.g[at] = 'f'
        end
    end
end

local function give_slot(donor, which)
    local counts = counts_of(donor)
    for _, at in ipairs(which) do
        local count = counts[at]
        count.n = count.n - 1
        count.e = count.e - (donor.e and 1 or 0)
        count.g = count.g + 1
        donor.g[at] = 'g'
    end
end

local function release_slot(entry)
    for at, count in ipairs(counts_of(entry)) do
        local kind = entry.g[at]
        if kind then
            count[kind] = count[kind] - 1
        else
            count.n = count.n - 1
            count.e = count.e - (entry.e and 1 or 0)
        end
    end
end
