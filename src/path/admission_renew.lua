-- A worker's requests are still under way: it keeps its places. KEYS: subjects. ARGV[1]: the worker, 8 bytes.
-- ARGV[2]: length of the lease. From ARGV[3]: how many places it has of each subject.
local now = clock()
for x, subject in ipairs(KEYS) do
	local s = call('GET', subject)
	local count, w, taken_by = tonumber(ARGV[x + 2]), s and {open(STATE, s)} or window_new(now), s and s:sub(169) or ''
	local mine = ARGV[1] .. pack('<I4I6', count, now + ARGV[2])
	local p = taken_by:find(ARGV[1], 1, true)
	if p then
		w[17] = w[17] - open('<I4', taken_by, p + 8)
		taken_by = taken_by:sub(1, p - 1) .. mine .. taken_by:sub(p + 18)
	else
		taken_by = taken_by .. mine
	end
	w[17] = w[17] + count
	call('SET', subject, window_pack(w, taken_by), 'EX', 2764800)
end
return #KEYS
