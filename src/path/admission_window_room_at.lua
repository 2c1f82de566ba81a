-- The time of the event after which what is missing (n, i, o) is there. Looks at 2,048 entries; beyond
-- them it is the last event's: late, never early.
local function window_room_at(w, key, n, i, o)
	local length = w[5] - w[4] + 1
	if length > 1 then
		n, i, o = n - w[7], i - w[8], o - w[9]
		if n <= 0 and i <= 0 and o <= 0 then return w[6] end
		local at = 0
		while at < 2048 and at < length - 2 do
			local entries = call('LRANGE', key .. ':e', at, at + 63)
			if #entries == 0 then break end
			for _, e in ipairs(entries) do
				local t, en, ei, eo = open(ENTRY, e)
				n, i, o = n - en, i - ei, o - eo
				if n <= 0 and i <= 0 and o <= 0 then return t end
			end
			at = at + 64
		end
	end
	return w[11]
end
