-- What started in the last second stays in the list, however few may start in it: the rule may change.
if given_back[1] then
	call('ZREM', queue .. ':f', given_back[1])
else
	if call('LPUSH', queue, start) > starts then
		local oldest, edge = call('LINDEX', queue, -1), now - max(starts_span, 1100)
		while oldest and tonumber(oldest) < edge do
			call('RPOP', queue)
			oldest = call('LINDEX', queue, -1)
		end
	end
	call('PEXPIRE', queue, start - now + max(starts_span, 1100) + 1000)
end
