-- member: whether there is something that it does not know, or has not acknowledged
begin()
advance()
local record = get('members', ARGV[3])
return finish(flag(not record or record.applied < meta.rules or next(open_mail(ARGV[3]))))
