-- A worker's requests are still under way: it keeps its places. KEYS: subjects. ARGV[1]: the worker, 8 bytes.
-- ARGV[2]: length of the lease. From ARGV[3]: how many places it has of each subject; -1: as many as are known here.
local now = clock()
for x, subject in ipairs(KEYS) do
	local s = call('GET', subject)
	local count, w, taken_by = tonumber(ARGV[x + 2]), s and {open(STATE, s)} or window_new(now), s and s:sub(169) or ''
	local p = taken_by:find(ARGV[1], 1, true)
	local taken = p and open('<I4', taken_by, p + 8) or 0
	if count < 0 then count = taken end
	local mine = count > 0 and pack('<c8I4I6', ARGV[1], count, now + ARGV[2]) or ''
	taken_by = p and taken_by:sub(1, p - 1) .. mine .. taken_by:sub(p + 18) or taken_by .. mine
	w[17] = w[17] - taken + count
	call('SET', subject, window_pack(w, taken_by), 'EX', 2764800)
end
return #KEYS
