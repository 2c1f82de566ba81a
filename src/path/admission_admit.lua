-- May these requests start? All are of one subject, mapping and pool and came together; one after the other
-- looks at all stages in their order, then takes at all of them or at none.
--
-- KEYS: subject, queue, pool (a stage that is not asked for repeats another's key).
-- ARGV[1]: numbers that are the same for all, then of each request the tokens that it may use, input and output, and
-- how many candidates for the vendor key it has, of one whose turn in the queue has come the event that it has been in
-- while it waited and when its window was made, then each candidate (admission_key_choose.lua). ARGV[2]: name of a place in the
-- queue, which one request at a time may ask for. ARGV[3]: the worker, 8 bytes. From ARGV[4]: ids of vendor keys.
-- Answer: of each request (of one alone no array) packed doubles: 1 verdict (0 admitted, 1 concurrency, 2 rate, 3 queue full, 4 keys at their
-- limit, 5 no usable key, 6 waits), 2 milliseconds until trying again helps, 3 now, 4-6 sums of requests, input,
-- output, 7 milliseconds until the windows are empty, 8 event, 9 when the window was made, 10 start (0: not
-- known yet), 11 candidate, 12 its event, 13 when its window was made, 14 trial, 15 the rule
-- of the queue that the start is by; then what was learnt of other keys, three numbers each.
--
-- Places (max_concurrency) are counted per worker, after the 168 bytes of the state: worker (8 bytes),
-- places taken (4), end of its lease (6). Each admission extends the worker's lease, admission_renew.lua does so
-- for workers whose requests last; the places of one that died come free when its lease is over.
-- include admission_window.lua
-- include admission_window_move.lua
-- include admission_keys.lua
local stages, span, lease, places, rpm, input_tpm, output_tpm, requests, at =
	open('<dddddddd', ARGV[1])
local subject, queue, pool, first_key = KEYS[1], KEYS[2], KEYS[3], 4
local has_subject, has_queue, has_pool, has_waited = stages % 2 == 1, stages % 4 >= 2, stages % 8 >= 4, stages >= 8
local apart, starts, starts_span, capacity, patience, read_us, behind, since, horizon = 0
if has_queue then
	starts, starts_span, capacity, patience, read_us, behind, at = open('<dddddd', ARGV[1], at)
end
local has_windows = rpm > 0 or input_tpm > 0 or output_tpm > 0
-- include admission_now.lua
if has_queue then
	-- include admission_queue_rule.lua
end
local w, more, new, dirty, placed = nil, '', false, false, 0

if has_subject then
	local s = call('GET', subject)
	if s then
		w = {open(STATE, s)}
		if #s > 168 then more = s:sub(169) end
		dirty = window_expire(w, subject, now - span)
	end
end
if not w then
	-- include admission_window_new.lua
	new = true
end

local answer, answers = '', requests > 1 and {}
for r = 1, requests do
	local verdict, wait, start, given_back, reserved, reserved_made, reserves = 0, 0, now
	local input, output, candidates, key, choice, limit, on_trial, learnt
	input, output, candidates, at = open('<ddd', ARGV[1], at)
	if has_waited then
		reserved, reserved_made, at = open('<dd', ARGV[1], at)
		reserves = reserved >= w[4] and reserved <= w[5] and reserved_made == w[16]
	end

	if places > 0 and not has_waited and w[17] >= places then
		-- those of the dead come free; whoever took one in this call is not dead
		local left, taken = {}, placed
		for p = 1, #more, 18 do
			local count, till = open('<I4I6', more, p + 8)
			if till >= now or (placed > 0 and more:sub(p, p + 7) == ARGV[3]) then
				left[#left + 1], taken = more:sub(p, p + 17), taken + count
			end
		end
		if taken ~= w[17] then
			more, w[17], dirty = table.concat(left), taken, true
		end
		if taken >= places then verdict = 1 end
	end

	if verdict == 0 and not reserves then
		local n = rpm > 0 and w[1] + 1 - rpm or 0
		local i = input_tpm > 0 and w[2] + max(1, input) - input_tpm or 0
		local o = output_tpm > 0 and w[3] + max(1, output) - output_tpm or 0
		if n > 0 or i > 0 or o > 0 then
			-- include admission_window_room_at.lua
			verdict, wait = 2, w[5] < w[4] and span or max(1, window_room_at(w, subject, n, i, o) + span - now)
		end
	end

	-- The queue. Nobody gets a start that comes after his patience. `behind`: what this node's last waiter waits for.
	if has_queue and verdict == 0 then
		-- include admission_queue_start.lua
		if start > now or behind > now then
			call('ZREMRANGEBYSCORE', queue .. ':w', '-inf', now)
			if call('ZCARD', queue .. ':w') >= capacity then
				local first = call('ZRANGE', queue .. ':w', 0, 0, 'WITHSCORES')
				verdict, wait = 3, max(1, (first[2] and tonumber(first[2]) or start) - now)
			else
				verdict, wait = 6, start - now
				if patience > 0 and wait > patience then start = 0 end
			end
		end
	end

	local event, key_event, key_made, trial = 0, 0, 0, 0
	if has_pool and verdict == 0 then
		-- include admission_key_choose.lua
		if not key then
			-- include admission_key_refusal.lua
		end
	end
	at = at + 16 * candidates

	if verdict == 0 or verdict == 6 then
		if has_windows then
			if reserves then
				local name, event, n, i, o = subject, reserved, -1, -input, -output
				-- include admission_window_adjust.lua
			end
			event, dirty = window_add(w, subject, now, 1, input, output, now + span), true
		end
		if places > 0 and not has_waited then
			w[17], placed, dirty = w[17] + 1, placed + 1, true
		end
		if has_queue then
			if start > 0 then
				-- include admission_queue_take.lua
			end
			if verdict == 6 then
				call('ZADD', queue .. ':w', start > 0 and start or now + patience, ARGV[2])
				call('PEXPIRE', queue .. ':w', max(60000, wait, patience) + 1000)
			end
		end
		if key then
			-- include admission_key_take.lua
		end
	end
	answer = pack('<ddddddddddddddd', verdict, wait, now, w[1], w[2], w[3], w[5] >= w[4] and w[11] + span - now or 0, event, w[16],
		start, choice or 0, key_event, key_made, trial, since or 0)
	-- include admission_learnt.lua
	if answers then answers[r] = answer end
end

if placed > 0 then
	local p = more:find(ARGV[3], 1, true)
	local taken = p and open('<I4', more, p + 8) or 0
	local mine = pack('<c8I4I6', ARGV[3], taken + placed, now + lease)
	more = p and more:sub(1, p - 1) .. mine .. more:sub(p + 18) or more .. mine
end
-- A subject's string lives as long as the day's figures in it.
if dirty then
	-- include admission_window_pack.lua
	if new then
		call('SET', subject, packed, 'EX', '2764800')
	else
		call('SET', subject, packed, 'KEEPTTL')
	end
end
-- include admission_keys_save.lua
return answers or answer
