-- A place in a queue is not wanted any more; nor is the start that it stood for (0: none).
-- KEYS: queue. ARGV: name of the place, start.
local t = redis.call('TIME')
local now, start, free = t[1] * 1000 + math.floor(t[2] / 1000), tonumber(ARGV[2]), KEYS[1] .. ':f'
redis.call('ZREM', KEYS[1] .. ':w', ARGV[1])
if start > now then
	redis.call('ZREMRANGEBYSCORE', free, '-inf', now)
	redis.call('ZADD', free, start, ARGV[1])
	redis.call('PEXPIRE', free, math.max(redis.call('PTTL', free), start - now + 1000))
end
return 0
