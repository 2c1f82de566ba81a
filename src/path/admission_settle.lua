-- The end of a request: its place, its reservations, the day's figures.
-- KEYS: subject, its usage (same tag). ARGV[1]: numbers. ARGV[2]: the worker, 8 bytes.
-- day: days since 1970. made: when the window was made that the request is in; another one knows
-- nothing of it. give_back: nothing was sent, so the event and its reservations go. known: the tokens
-- are what the vendor says; else the reservations stand.
local place, event, made, reserved_i, reserved_o, give_back, day, count, input, output, known = open('<ddddddddddd', ARGV[1])
local subject = KEYS[1]
local s, w, taken_by, dirty = call('GET', subject), nil, '', false
if s then
	w = {open(STATE, s)}
	if #s > 168 then taken_by = s:sub(169) end
	local p = place > 0 and taken_by:find(ARGV[2], 1, true)
	if p then
		local taken, till = open('<I4I6', taken_by, p + 8)
		w[17], dirty = w[17] - 1, true
		taken_by = taken_by:sub(1, p - 1) .. (taken > 1 and ARGV[2] .. pack('<I4I6', taken - 1, till) or '') .. taken_by:sub(p + 18)
	end
	if event > 0 and w[16] == made then
		if give_back > 0 then
			dirty = window_adjust(w, subject, event, -1, -reserved_i, -reserved_o) or dirty
		elseif known > 0 and (input ~= reserved_i or output ~= reserved_o) then
			dirty = window_adjust(w, subject, event, 0, input - reserved_i, output - reserved_o) or dirty
		end
	end
elseif count > 0 then
	local t = call('TIME')
	w = {0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, t[1] * 1000 + math.floor(t[2] / 1000), 0, 0, 0, 0, 0}
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
if not dirty then return 0 end
if new_day then
	call('SET', subject, window_pack(w, taken_by), 'EX', 2764800)
else
	call('SET', subject, window_pack(w, taken_by), 'KEEPTTL')
end
return 0
