-- Which rule holds: that of the configuration that was read last, whoever asks. Where it is another than before, the
-- starts that were handed out by the old one are void, but for those of the next second: whoever waits for them may not
-- know yet. `since`: the microsecond at which this rule came to hold, its name; `horizon`: which older starts count still.
-- It is kept for 32 days, and written again after 16 for a queue that is in use: hence when it was written, its last number.
since = time[1] * 1000000 + time[2]
local known = call('GET', queue .. ':r')
local version, old_starts, old_span, old_since, due = 0, 0, 0, since
if known then
	version, old_starts, old_span, old_since = open('<dddd', known)
	due = since > (#known > 32 and open('<d', known, 33) or 0) + 1382400000000
end
local written = since
if not known or read_us > version or version > since then
	if not known or old_starts ~= starts or old_span ~= starts_span then
		local last = call('LINDEX', queue, 0)
		while known and last and tonumber(last) > now + 1000 do
			call('LPOP', queue)
			last = call('LINDEX', queue, 0)
		end
		call('DEL', queue .. ':f')
	else
		since = old_since
	end
	version, due = read_us, true
else
	since = old_since
	if read_us < version then starts, starts_span = old_starts, old_span end
end
if due then call('SET', queue .. ':r', pack('<ddddd', version, starts, starts_span, since, written), 'EX', '2764800') end
horizon = floor(since / 1000) + 1000
