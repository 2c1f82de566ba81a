-- Changes an event where it stands. Returns whether it still counts.
local function window_adjust(w, key, number, n, i, o)
	local first = w[4]
	if number < first or number > w[5] then return false end
	if number == w[5] then
		w[12], w[13], w[14] = w[12] + n, w[13] + i, w[14] + o
	elseif number == first then
		w[7], w[8], w[9] = w[7] + n, w[8] + i, w[9] + o
	else
		local e = call('LINDEX', key .. ':e', number - first - 1)
		if not e then return false end
		local t, en, ei, eo = open(ENTRY, e)
		call('LSET', key .. ':e', number - first - 1, pack(ENTRY, t, en + n, ei + i, eo + o))
	end
	w[1], w[2], w[3] = w[1] + n, w[2] + i, w[3] + o
	return true
end
