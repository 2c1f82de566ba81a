-- A worker's requests are still under way: it keeps its places. KEYS: subjects. ARGV[1]: the worker, 8 bytes.
-- ARGV[2]: length of the lease. From ARGV[3]: how many places it has of each subject; -1: as many as are known here.
-- include admission_window.lua
-- include admission_now.lua
for x, subject in ipairs(KEYS) do
	local s = call('GET', subject)
	local count, w, more = tonumber(ARGV[x + 2]), s and {open(STATE, s)}, s and s:sub(169) or ''
	if not w then
		-- include admission_window_new.lua
	end
	local p = more:find(ARGV[1], 1, true)
	local taken = p and open('<I4', more, p + 8) or 0
	if count < 0 then count = taken end
	local mine = count > 0 and pack('<c8I4I6', ARGV[1], count, now + ARGV[2]) or ''
	more = p and more:sub(1, p - 1) .. mine .. more:sub(p + 18) or more .. mine
	w[17] = w[17] - taken + count
	-- include admission_window_pack.lua
	call('SET', subject, packed, 'EX', '2764800')
end
return #KEYS
