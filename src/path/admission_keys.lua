-- Vendor keys: their windows and their health, one string each, none for a key without a limit that
-- is well. w.lives: the string is told long enough to live already.
local function key_save(key, w, now)
	if w.lives then
		call('SET', key, window_pack(w, ''), 'KEEPTTL')
	else
		call('SET', key, window_pack(w, ''), 'PX', max(3600000, max(w[15], w[18]) - now + 600000))
	end
end

-- The first usable one of the candidates (id, limit per minute, ...) from ARGV[first] on, or nil; and what was
-- learnt of keys that are not well or full: place, until, status (-1: at its limit), three numbers each.
local function key_choose(pool, first, count, now, span)
	local learnt = {}
	for c = 1, count do
		local key, limit = pool .. ':k:' .. ARGV[first + c * 2 - 2], tonumber(ARGV[first + c * 2 - 1])
		local s, usable, trial, w, dirty = call('GET', key), true, false, nil, false
		if s or limit > 0 then w = s and {open(STATE, s)} or window_new(now) end
		if w and (w[17] > 0 or w[19] > 0) then
			usable, trial = w[17] == 0 or w[18] <= now, w[17] > 0
			local n = #learnt
			learnt[n + 1], learnt[n + 2], learnt[n + 3] = c, w[17] == 2 and min(w[18], now + 1000) or w[18], w[21]
		end
		if usable and limit > 0 then
			dirty = window_expire(w, key, now - span)
			if w[1] >= limit then
				usable = false
				local n = #learnt
				learnt[n + 1], learnt[n + 2], learnt[n + 3] = c, window_room_at(w, key, w[1] + 1 - limit, 0, 0) + span, -1
				if dirty then key_save(key, w, now) end
			end
		end
		if usable then return {place = c, key = key, limit = limit, trial = trial, w = w}, learnt end
	end
	return nil, learnt
end

-- Takes the one chosen. Returns the number of its event, when its window was made, and the trial's
-- name; 0 for none.
local function key_take(choice, now, span)
	local event, trial, w = 0, 0, choice.w
	if not w then return 0, 0, 0 end
	if choice.limit > 0 then
		local keep = w[15]
		event = window_add(w, choice.key, now, now, 1, 0, 0, now + span)
		w.lives = w[15] == keep and not choice.trial -- about once a minute it is told again
	end
	if choice.trial then
		trial = now + 60000
		w[17], w[18] = 2, trial
	end
	if event > 0 or trial > 0 then key_save(choice.key, w, now) end
	return event, w[16], trial
end

-- No key: 4 where waiting helps (at their limit, or cooling after a 429), else 5; and how long.
local function key_refusal(learnt, now)
	local verdict, soonest, any = 5, nil, nil
	for x = 1, #learnt, 3 do
		local wait = learnt[x + 1] - now
		if learnt[x + 2] == -1 or learnt[x + 2] == 429 then
			verdict = 4
			if not soonest or wait < soonest then soonest = wait end
		end
		if not any or wait < any then any = wait end
	end
	return verdict, max(1, soonest or any or 1)
end
