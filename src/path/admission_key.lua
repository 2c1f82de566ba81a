-- A vendor key: says how the last attempt went, takes that attempt out of the key's window where nothing
-- was sent, and chooses among the candidates (none: only the report).
-- KEYS: pool. ARGV[1]: numbers, then the candidates. ARGV[2]: id of the key reported on, or empty. From ARGV[3]:
-- vendor keys, id and limit per minute each. Answer: as one of admission_admit.lua's.
local span, outcome, status, retry_after, trial, back_event, back_made, candidates, at = open('<dddddddd', ARGV[1])
local now, pool = clock(), KEYS[1]
if ARGV[2] ~= '' then
	local key = key_known(pool .. ':k:' .. ARGV[2])
	if outcome > 0 or trial > 0 then health_report(key, now, outcome, status, retry_after, trial) end
	local w = key.w
	if back_event > 0 and w and w[16] == back_made and window_adjust(w, key.name, back_event, -1, 0, 0) then key.changed = true end
end
local answer = ''
if candidates > 0 then
	local choice, learnt = key_choose(pool, 3, ARGV[1], at, candidates, now, span)
	local verdict, wait, key_event, key_made, new_trial = 0, 0, 0, 0, 0
	if choice then
		key_event, key_made, new_trial = key_take(choice, now, span)
	else
		verdict, wait = key_refusal(learnt, now)
	end
	answer = answer_pack(verdict, wait, now, 0, 0, 0, 0, 0, 0, now, choice, key_event, key_made, new_trial, learnt)
end
keys_save(now)
return answer
