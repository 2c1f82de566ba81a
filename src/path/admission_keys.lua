-- Vendor keys: their windows and their health, one string each, none for a key without a limit that
-- is well. Each is read once a call and written once, at its end.
local keys_known, keys_count = {}, 0

-- told: what it says must be told to live longer.
local function key_known(name)
	local key = keys_known[name]
	if not key then
		local s = call('GET', name)
		key = {name = name, w = s and {open(STATE, s)} or nil, told = not s, changed = false}
		keys_count = keys_count + 1
		keys_known[name], keys_known[keys_count] = key, key
	end
	return key
end

local function keys_save(now)
	for k = 1, keys_count do
		local key = keys_known[k]
		if key.changed and key.told then
			call('SET', key.name, window_pack(key.w, ''), 'PX', max(3600000, max(key.w[15], key.w[18]) - now + 600000))
		elseif key.changed then
			call('SET', key.name, window_pack(key.w, ''), 'KEEPTTL')
		end
	end
end

-- The first usable one of the candidates, or nil; and what was learnt of keys that are not well or full: place,
-- until, status (-1: at its limit), three numbers each. The candidates: `count` packed doubles from `at` on in
-- `places`, each the place of a vendor key, id and limit per minute, in ARGV from `first` on.
local function key_choose(pool, first, places, at, count, now, span)
	local learnt, n = {}, 0
	for c = 1, count do
		local place = first + 2 * open('<d', places, at + 8 * (c - 1))
		local key, limit = key_known(pool .. ':k:' .. ARGV[place]), tonumber(ARGV[place + 1])
		if not key.w and limit > 0 then key.w = window_new(now) end
		local usable, trial, w = true, false, key.w
		if w and (w[17] > 0 or w[19] > 0) then
			usable, trial = w[17] == 0 or w[18] <= now, w[17] > 0
			learnt[n + 1], learnt[n + 2], learnt[n + 3] = c, w[17] == 2 and min(w[18], now + 1000) or w[18], w[21]
			n = n + 3
		end
		if usable and limit > 0 then
			key.changed = window_expire(w, key.name, now - span) or key.changed
			if w[1] >= limit then
				usable = false
				learnt[n + 1], learnt[n + 2], learnt[n + 3] = c, window_room_at(w, key.name, w[1] + 1 - limit, 0, 0) + span, -1
				n = n + 3
			end
		end
		if usable then return {place = c, key = key, limit = limit, trial = trial}, learnt end
	end
	return nil, learnt
end

-- Takes the one chosen. Returns the number of its event, when its window was made, and the trial's
-- name; 0 for none.
local function key_take(choice, now, span)
	local event, trial, key = 0, 0, choice.key
	local w = key.w
	if not w then return 0, 0, 0 end
	if choice.limit > 0 then
		local till = w[15]
		event = window_add(w, key.name, now, now, 1, 0, 0, now + span)
		if w[15] ~= till then key.told = true end -- about once a minute
	end
	if choice.trial then
		trial = now + 60000
		w[17], w[18], key.told = 2, trial, true
	end
	if event > 0 or trial > 0 then key.changed = true end
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

-- verdict, wait, now, sums, reset, event, made, start: see admission_admit.lua.
local function answer_pack(verdict, wait, now, n, i, o, reset, event, made, start, choice, key_event, key_made, trial, learnt)
	local answer = pack('<dddddddddddddd', verdict, wait, now, n, i, o, reset, event, made, start, choice and choice.place or 0,
		key_event, key_made, trial)
	if learnt and #learnt > 0 then return answer .. pack('<' .. ('d'):rep(#learnt), unpack(learnt)) end
	return answer
end
