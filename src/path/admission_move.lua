-- The rule of a queue has changed: these places get new starts, in their order. What they had is free again.
-- KEYS: queue. ARGV[1]: packed numbers: as admission_admit.lua's for a queue; of each place the start it has (0: none) and
-- the rule that it is by (admission_queue_rule.lua). From ARGV[2]: their names.
-- Answer: packed doubles: now, the rule, then of each its start (0: none before its patience ends).
local open, pack, call, floor, max = struct.unpack, struct.pack, redis.call, math.floor, math.max
local starts, starts_span, capacity, patience, read_us, behind, at = open('<dddddd', ARGV[1])
local queue, first, apart, own, since, horizon, given_back, start = KEYS[1], at, 1, {}
-- include admission_now.lua
-- include admission_queue_rule.lua
for _ = 2, #ARGV do
	local had, rule
	had, rule, at = open('<dd', ARGV[1], at)
	if had > now and had <= horizon and rule ~= since then own[had] = (own[had] or 0) + 1 end
end
if next(own) then
	local kept = {}
	local s = tonumber(call('LINDEX', queue, 0) or 0)
	while s > now do
		call('LPOP', queue)
		if own[s] and own[s] > 0 then own[s] = own[s] - 1 else kept[#kept + 1] = s end
		s = tonumber(call('LINDEX', queue, 0) or 0)
	end
	for k = #kept, 1, -1 do call('LPUSH', queue, kept[k]) end
end
at = first
local answer = {pack('<dd', now, since)}
for place = 2, #ARGV do
	local rule
	start, rule, at = open('<dd', ARGV[1], at)
	if start == 0 or rule ~= since then
		-- include admission_queue_start.lua
		if patience > 0 and start - now > patience then
			start = 0
		else
			-- include admission_queue_take.lua
		end
		call('ZADD', queue .. ':w', start > 0 and start or now + patience, ARGV[place])
		call('PEXPIRE', queue .. ':w', max(60000, start - now, patience) + 1000)
	end
	answer[place] = pack('<d', start)
end
return table.concat(answer)
