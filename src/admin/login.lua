-- Failed logins of a user and of an address, in sliding windows.
-- KEYS: user, address. ARGV: what, span, limit of the user, limit of the address, name of the attempt, lease.
-- `try`: an attempt begins: {0} go on, {1, ms} refused, {2} others under way may still fill the
-- limit: ask again soon. `wrong`, `right`: how it ended. A failure is a member with its time, an attempt
-- under way is one in `:t` with the end of its lease. With `try` come the failures that this node could not tell when
-- they were: of each the key, how long ago it was, its name.
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local what, span, name, lease = ARGV[1], tonumber(ARGV[2]), ARGV[5], tonumber(ARGV[6])
local retry, pending = 0, false
for x, age, untold in ARGV[7]:gmatch('(%d) (%d+) (%x+)') do
	local key = KEYS[tonumber(x)]
	call('ZREM', key .. ':t', untold)
	call('ZADD', key, now - age, untold)
	call('PEXPIRE', key, span + 1000)
end
for x, key in ipairs(KEYS) do
	if what == 'try' then
		call('ZREMRANGEBYSCORE', key, '-inf', '(' .. (now - span))
		call('ZREMRANGEBYSCORE', key .. ':t', '-inf', now)
		local limit, wrong = tonumber(ARGV[2 + x]), call('ZCARD', key)
		if wrong >= limit then
			local nth = call('ZRANGE', key, wrong - limit, wrong - limit, 'WITHSCORES')
			retry = math.max(retry, nth[2] + span - now, 1)
		elseif wrong + call('ZCARD', key .. ':t') >= limit then
			pending = true
		end
	else
		call('ZREM', key .. ':t', name)
		if what == 'wrong' then
			call('ZADD', key, now, name)
			call('PEXPIRE', key, span + 1000)
		end
	end
end
if what ~= 'try' then return {0} end
if retry > 0 then return {1, retry} end
if pending then return {2} end
for _, key in ipairs(KEYS) do
	call('ZADD', key .. ':t', now + lease, name)
	call('PEXPIRE', key .. ':t', lease)
end
return {0}
