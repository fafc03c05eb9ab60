-- digest
begin()
drop_old_tickets()
return finish(take_ticket(ARGV[3]))
