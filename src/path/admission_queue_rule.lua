-- Which rule holds: that of the configuration that was read last, whoever asks. Where it is another than before, the
-- starts that were handed out by the old one are void, but for those of the next second: whoever waits for them may not
-- know yet. `since`: the microsecond at which this rule came to hold, its name; `horizon`: which older starts count still.
since = time[1] * 1000000 + time[2]
local known = call('GET', queue .. ':r')
local version, old_starts, old_span, old_since = 0, 0, 0, since
if known then version, old_starts, old_span, old_since = open('<dddd', known) end
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
	call('SET', queue .. ':r', pack('<dddd', read_us, starts, starts_span, since), 'EX', '2764800')
else
	since = old_since
	if read_us < version then starts, starts_span = old_starts, old_span end
end
horizon = floor(since / 1000) + 1000
