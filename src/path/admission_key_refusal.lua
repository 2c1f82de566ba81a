-- No key: 4 where waiting helps (at their limit, or cooling after a 429), else 5; and how long.
-- From its includer: learnt, now. To it: verdict, wait.
local soonest, any
verdict = 5
for x = 1, learnt and #learnt or 0, 3 do
	local till = learnt[x + 1] - now
	if learnt[x + 2] == -1 or learnt[x + 2] == 429 then
		verdict = 4
		if not soonest or till < soonest then soonest = till end
	end
	if not any or till < any then any = till end
end
wait = max(1, soonest or any or 1)
