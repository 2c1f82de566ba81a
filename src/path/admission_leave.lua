-- A place in a queue is not wanted any more; nor is the start that it stood for (0: none).
-- Where somebody waits for a later one, all nodes hear of it (admission_forward.lua).
-- KEYS: queue. ARGV: name of the place, start, the rule that the start is by (admission_queue_rule.lua).
local time, free, known = redis.call('TIME'), KEYS[1] .. ':f', redis.call('GET', KEYS[1] .. ':r')
local now, start, rule = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[2]), tonumber(ARGV[3])
local since = known and struct.unpack('<d', known, 25) or 0
redis.call('ZREM', KEYS[1] .. ':w', ARGV[1])
if start > now and rule == since then
	redis.call('ZREMRANGEBYSCORE', free, '-inf', now)
	redis.call('ZADD', free, start, ARGV[1])
	redis.call('PEXPIRE', free, math.max(redis.call('PTTL', free), start - now + 1000))
	if redis.call('ZCOUNT', KEYS[1] .. ':w', '(' .. ARGV[2], '+inf') > 0 then
		redis.pcall('PUBLISH', 'apiproxy:given-back', KEYS[1]:match('{(.*)}'))
	end
elseif start > now and start <= math.floor(since / 1000) + 1000 then
	redis.call('LREM', KEYS[1], 1, ARGV[2])
end
return 0
