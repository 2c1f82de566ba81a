-- One numbered flush of a node's counts. A number that was counted before changes nothing, so a flush
-- whose answer was lost can be sent again.
-- KEYS: the node's totals, the cluster's totals, the last number of this life, the nodes that are there
-- ARGV: number, node, then field and difference in turn
-- Answer: how many nodes there are, then the node's value of each field
local PRESENT_SECONDS = 15
local LIFE_SECONDS = 86400
local NODE_SECONDS = 400 * 86400

local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[4], now, ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - PRESENT_SECONDS)
redis.call('EXPIRE', KEYS[4], 3600)

local fresh = tonumber(redis.call('GET', KEYS[3]) or '0') < tonumber(ARGV[1])
local answer = {redis.call('ZCARD', KEYS[4])}
for i = 3, #ARGV, 2 do
	if fresh and ARGV[i + 1] ~= '0' then
		redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
		redis.call('HINCRBY', KEYS[2], ARGV[i], ARGV[i + 1])
	end
	answer[#answer + 1] = redis.call('HGET', KEYS[1], ARGV[i]) or '0'
end
if fresh then
	redis.call('SET', KEYS[3], ARGV[1], 'EX', LIFE_SECONDS)
	redis.call('EXPIRE', KEYS[1], NODE_SECONDS)
end
return answer
