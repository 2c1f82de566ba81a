-- What an attempt with a vendor key says of its health. HEALTH_TABLE[state][outcome] is what to do; it
-- is made of admission_health.h.
-- include HEALTH_TABLE
local function health_set(w, state, until_ms, failures, pause, reason)
	w[17], w[18], w[19], w[20], w[21] = state, until_ms, failures, pause, reason
end

-- What an attempt with a key says of it. trial: the name of the trial that it was (the end of the
-- trial's time), or 0.
local function health_report(key, now, outcome, status, retry_after, trial)
	if not key[2] and outcome < 2 then return end
	local w = key[2]
	if not w then
		-- include admission_window_new.lua
	end
	local row = w[17] + 1
	if w[17] == 2 and trial > 0 and w[18] == trial then row = 4 end
	local action = HEALTH_TABLE[row][outcome + 1]
	if action == 'none' then return end
	if action == 'clear' then
		health_set(w, 0, 0, 0, 0, 0)
	elseif action == 'count' then
		if w[19] + 1 >= 3 then
			health_set(w, 1, now + 10000, 0, 10000, status)
		else
			w[19], w[21] = w[19] + 1, status
		end
	elseif action == 'longer' then
		local pause = min(300000, max(10000, w[20] * 2))
		health_set(w, 1, now + pause, 0, pause, status)
	elseif action == 'again' then -- the trial said nothing: the next request is one
		health_set(w, 1, now, 0, w[20], w[21])
	else
		local later = now + (action == 'reject' and 300000 or (retry_after > 0 and retry_after or 30000))
		if w[17] == 1 and w[18] > later then later, status = w[18], w[21] end
		health_set(w, 1, later, 0, w[20], status)
	end
	key[2], key[3], key[4] = w, true, true
end
