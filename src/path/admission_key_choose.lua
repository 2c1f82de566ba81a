-- The first usable one of the candidates; and what was learnt of keys that are not well or full: candidate,
-- until, status (-1: at its limit), three numbers each. The candidates: `candidates` pairs of packed doubles from `at`
-- on in ARGV[1], the place of a vendor key's id in ARGV, from first_key on, and its limit per minute.
-- From its includer: keys, first_key, pool, at, candidates, now, span. To it: key (nil: none), choice, limit, on_trial;
-- learnt (nil: nothing).
for c = 1, candidates do
	local place, most = open('<dd', ARGV[1], at + 16 * (c - 1))
	local k = keys[place]
	if not k then
		local name = pool .. ':k:' .. ARGV[first_key + place - 1]
		local s = call('GET', name)
		k = {name, s and {open(STATE, s)}, not s, false}
		keys[place] = k
	end
	local w, usable, unwell = k[2], true, false
	if not w and most > 0 then
		-- include admission_window_new.lua
		k[2] = w
	end
	if w and (w[17] > 0 or w[19] > 0) then
		usable, unwell, learnt = w[17] == 0 or w[18] <= now, w[17] > 0, learnt or {}
		local x = #learnt
		learnt[x + 1], learnt[x + 2], learnt[x + 3] = c, w[17] == 2 and min(w[18], now + 1000) or w[18], w[21]
	end
	if usable and most > 0 then
		k[4] = window_expire(w, k[1], now - span) or k[4]
		if w[1] >= most then
			-- include admission_window_room_at.lua
			usable, learnt = false, learnt or {}
			local x = #learnt
			learnt[x + 1], learnt[x + 2], learnt[x + 3] = c, window_room_at(w, k[1], w[1] + 1 - most, 0, 0) + span, -1
		end
	end
	if usable then
		key, choice, limit, on_trial = k, c, most, unwell
		break
	end
end
