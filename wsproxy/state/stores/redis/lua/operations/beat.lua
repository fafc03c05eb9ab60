-- member, number, epoch, applied, seen, roster, failures, version of the failures
begin()
asker = ARGV[3]
advance()
local record = get('members', asker)
local beat = {epoch = ARGV[5], roster = tonumber(ARGV[8]), since = tonumber(ARGV[10])}
if record then
    renew(record)
    if tonumber(ARGV[4]) > record.batch then
        record.batch = tonumber(ARGV[4])
        push_failures(ARGV[9])
    end
    if beat.epoch == meta.epoch then
        record.applied = tonumber(ARGV[6])
        acknowledge(asker, tonumber(ARGV[7]))
    end
    keep(record)
    record.r = beat.epoch == meta.epoch and beat.roster
    rise(record)
end
return finish(pulse(record, beat))
