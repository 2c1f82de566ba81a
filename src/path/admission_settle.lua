-- The end of requests of one subject: their places, their reservations, the day's figures.
-- KEYS: subject, its usage (same tag). ARGV[1]: numbers. ARGV[2]: the worker, 8 bytes.
-- The numbers: day (days since 1970), places given back, then for the day requests, input, output; how many
-- changes of events follow; of each the event, when the window was made that it is in (another one knows nothing of
-- it), and what is added to its requests, input and output. Event 0: requests of one without limits, who is not
-- asked for before they start: they are in the window as of now, for what is shown, and for limits to come.
-- include admission_window.lua
local day, places, count, input, output, changes, at = open('<dddddd', ARGV[1])
local subject = KEYS[1]
local s, w, more, dirty = call('GET', subject), nil, '', false
if s then
	w = {open(STATE, s)}
	if #s > 168 then more = s:sub(169) end
	local p = places > 0 and more:find(ARGV[2], 1, true)
	if p then
		local taken, till = open('<I4I6', more, p + 8)
		local left = max(0, taken - places)
		w[17], dirty = w[17] - taken + left, true
		more = more:sub(1, p - 1) .. (left > 0 and pack('<c8I4I6', ARGV[2], left, till) or '') .. more:sub(p + 18)
	end
elseif count > 0 then
	-- include admission_now.lua
	-- include admission_window_new.lua
end
for _ = 1, w and changes or 0 do
	local event, made, n, i, o
	event, made, n, i, o, at = open('<ddddd', ARGV[1], at)
	if event == 0 then
		-- include admission_now.lua
		-- include admission_window_move.lua
		window_expire(w, subject, now - 60000)
		window_add(w, subject, now, n, i, o, now + 60000)
		dirty = true
	elseif w[16] == made then
		local name = subject
		-- include admission_window_adjust.lua
		dirty = dirty or counts
	end
end
local new_day = not s
if count > 0 then
	if w[18] < day then
		if w[19] > 0 then -- the day before goes to the history, and what is older than 30 days goes
			call('HSET', KEYS[2], w[18], ('%.0f %.0f %.0f'):format(w[19], w[20], w[21]))
			call('EXPIRE', KEYS[2], 2764800)
			for _, old in ipairs(call('HKEYS', KEYS[2])) do
				if tonumber(old) <= day - 30 then call('HDEL', KEYS[2], old) end
			end
		end
		w[18], w[19], w[20], w[21], new_day = day, 0, 0, 0, true
	end
	w[19], w[20], w[21], dirty = w[19] + count, w[20] + input, w[21] + output, true
end
if dirty then
	-- include admission_window_pack.lua
	if new_day then
		call('SET', subject, packed, 'EX', '2764800')
	else
		call('SET', subject, packed, 'KEEPTTL')
	end
end
return 0
