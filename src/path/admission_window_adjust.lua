-- Changes an event where it stands. From its includer: w, name, event, n, i, o. To it: counts, whether the event still
-- does.
local counts = event >= w[4] and event <= w[5]
if counts and event == w[5] then
	w[12], w[13], w[14] = w[12] + n, w[13] + i, w[14] + o
elseif counts and event == w[4] then
	w[7], w[8], w[9] = w[7] + n, w[8] + i, w[9] + o
elseif counts then
	local e = call('LINDEX', name .. ':e', event - w[4] - 1)
	counts = e and true
	if e then
		local t, en, ei, eo = open(ENTRY, e)
		call('LSET', name .. ':e', event - w[4] - 1, pack(ENTRY, t, en + n, ei + i, eo + o))
	end
end
if counts then
	w[1], w[2], w[3] = w[1] + n, w[2] + i, w[3] + o
end
