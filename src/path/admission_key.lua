-- A vendor key: says how the last attempt went, takes that attempt out of the key's window where nothing
-- was sent, and chooses among the candidates (none: only the report).
-- KEYS: pool. ARGV[1]: numbers. ARGV[2]: id of the key reported on, or empty. From ARGV[3]: candidates.
-- Answer: as admission_admit.lua's.
local span, outcome, status, retry_after, trial, back_event, back_made, candidates = open('<dddddddd', ARGV[1])
local now, pool = clock(), KEYS[1]
if ARGV[2] ~= '' then
	local key = pool .. ':k:' .. ARGV[2]
	if outcome > 0 or trial > 0 then health_report(key, now, outcome, status, retry_after, trial) end
	local s = back_event > 0 and call('GET', key)
	if s then
		local w = {open(STATE, s)}
		if w[16] == back_made and window_adjust(w, key, back_event, -1, 0, 0) then key_save(key, w, now) end
	end
end
if candidates == 0 then return '' end
local choice, learnt = key_choose(pool, 3, candidates, now, span)
local verdict, wait, key_event, key_made, new_trial = 0, 0, 0, 0, 0
if choice then
	key_event, key_made, new_trial = key_take(choice, now, span)
else
	verdict, wait = key_refusal(learnt, now)
end
local answer = pack('<dddddddddddddd', verdict, wait, now, 0, 0, 0, 0, 0, 0, now, choice and choice.place or 0, key_event, key_made,
	new_trial)
if #learnt > 0 then return answer .. pack('<' .. ('d'):rep(#learnt), unpack(learnt)) end
return answer
