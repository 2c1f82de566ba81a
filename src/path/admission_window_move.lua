-- Takes out what counts no longer: what was before `edge`. Returns whether anything changed.
local function window_expire(w, key, edge)
	if w[5] < w[4] then return false end
	if w[11] < edge then
		if w[5] - w[4] > 1 then call('DEL', key .. ':e') end
		w[1], w[2], w[3], w[4] = 0, 0, 0, w[5] + 1
		return true
	end
	if w[4] == w[5] or w[6] >= edge then return false end
	repeat
		w[1], w[2], w[3], w[4] = w[1] - w[7], w[2] - w[8], w[3] - w[9], w[4] + 1
		if w[4] == w[5] then break end
		local e = call('LPOP', key .. ':e')
		if not e then -- the list is gone: what is left is the last event
			w[1], w[2], w[3], w[4] = w[12], w[13], w[14], w[5]
			break
		end
		w[6], w[7], w[8], w[9] = open(ENTRY, e)
	until w[6] >= edge
	return true
end

-- Enters an event and returns its number. keep_ms: until when it may matter.
local function window_add(w, key, now, n, i, o, keep_ms)
	local t, told, length = now, false, w[5] - w[4] + 1
	local full = length >= 10000 or w[1] >= 10000
	w[1], w[2], w[3] = w[1] + n, w[2] + i, w[3] + o
	if w[15] < keep_ms + 1000 then
		w[15], told = keep_ms + 60000, length > 2
	end
	if length > 0 then
		if t < w[11] then t = w[11] end
		if t == w[11] or (full and t - w[10] <= 100) then
			w[11], w[12], w[13], w[14] = t, w[12] + n, w[13] + i, w[14] + o
			if told then call('PEXPIRE', key .. ':e', w[15] - now) end
			return w[5]
		end
		if length == 1 then
			w[6], w[7], w[8], w[9] = w[11], w[12], w[13], w[14]
		else
			local e = pack(ENTRY, w[11], w[12], w[13], w[14])
			local size = call('RPUSH', key .. ':e', e)
			if size > 1 and length == 2 then -- what a state that was lost has left behind
				call('DEL', key .. ':e')
				size = call('RPUSH', key .. ':e', e)
			end
			if told or size == 1 then call('PEXPIRE', key .. ':e', w[15] - now) end
		end
	end
	w[5], w[10], w[11], w[12], w[13], w[14] = w[5] + 1, t, t, n, i, o
	return w[5]
end
