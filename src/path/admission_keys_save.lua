-- From its includer: keys, first_key, now.
for place = 0, #ARGV - first_key + 1 do
	local key = keys[place]
	if key and key[4] then
		local w, more = key[2], ''
		-- include admission_window_pack.lua
		key[4] = false
		if key[3] then
			call('SET', key[1], packed, 'PX', max(3600000, max(w[15], w[18]) - now + 600000))
		else
			call('SET', key[1], packed, 'KEEPTTL')
		end
	end
end
