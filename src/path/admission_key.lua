-- A vendor key: says how the last attempt went, takes that attempt out of the key's window where nothing
-- was sent, and chooses among the candidates (none: only the report).
-- KEYS: pool. ARGV[1]: numbers, then the candidates (admission_key_choose.lua). ARGV[2]: id of the key reported on, or
-- empty. From ARGV[3]: ids of vendor keys. Answer: as one of admission_admit.lua's.
-- include admission_window.lua
-- include admission_window_move.lua
-- include admission_keys.lua
local span, outcome, status, retry_after, trial_was, event, made, candidates, at = open('<dddddddd', ARGV[1])
local pool, first_key = KEYS[1], 3
-- include admission_now.lua
if ARGV[2] ~= '' then
	local name = pool .. ':k:' .. ARGV[2]
	local s = call('GET', name)
	local reported = {name, s and {open(STATE, s)}, not s, false}
	keys[0] = reported
	for place = 1, #ARGV - first_key + 1 do
		if ARGV[first_key + place - 1] == ARGV[2] then keys[place] = reported end
	end
	if outcome > 0 or trial_was > 0 then
		-- include admission_health.lua
		health_report(reported, now, outcome, status, retry_after, trial_was)
	end
	local w, n, i, o = reported[2], -1, 0, 0
	if event > 0 and w and w[16] == made then
		-- include admission_window_adjust.lua
		reported[4] = reported[4] or counts
	end
end
local answer = ''
if candidates > 0 then
	local verdict, wait, key_event, key_made, trial = 0, 0, 0, 0, 0
	local key, choice, limit, on_trial, learnt
	-- include admission_key_choose.lua
	if key then
		-- include admission_key_take.lua
	else
		-- include admission_key_refusal.lua
	end
	answer = pack('<ddddddddddddddd', verdict, wait, now, 0, 0, 0, 0, 0, 0, now, choice or 0, key_event, key_made, trial, 0)
	-- include admission_learnt.lua
end
-- include admission_keys_save.lua
return answer
