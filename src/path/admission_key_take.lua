-- Takes the key that was chosen. From its includer: key, limit, on_trial, now, span. To it: key_event, the number of its
-- event, key_made, when its window was made, and the trial's name; 0 for none.
local w = key[2]
if w then
	if limit > 0 then
		local till = w[15]
		key_event = window_add(w, key[1], now, 1, 0, 0, now + span)
		if w[15] ~= till then key[3] = true end -- about once a minute
	end
	if on_trial then
		trial = now + 60000
		w[17], w[18], key[3] = 2, trial, true
	end
	if key_event > 0 or trial > 0 then key[4] = true end
	key_made = w[16]
end
