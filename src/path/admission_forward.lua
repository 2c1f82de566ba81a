-- Starts that were given back (:f) are for places of one node that wait for later ones. What such a place had stays its own
-- until the node gives it back (admission_leave.lua): an answer that is lost costs a start, and none is had by two.
-- Nobody is overtaken: of all starts, free or not, each place may have the one that would be its own if all nodes'
-- moved up in their order, or a later one; only what would be lost by the next look is for whoever asks.
-- KEYS: queue. ARGV[1]: packed numbers: the rule that the starts are by (admission_queue_rule.lua), how many ms ahead are
-- near; then the start of each place, in this order (0: none, these are last). From ARGV[2]: their names.
-- Answer: packed doubles: now, the first start that was left to others (0: none), then of each place its new start (0: as it was).
local open, pack, call, floor = struct.unpack, struct.pack, redis.call, math.floor
local rule, near, at = open('<dd', ARGV[1])
local frees, waits, known = KEYS[1] .. ':f', KEYS[1] .. ':w', redis.call('GET', KEYS[1] .. ':r')
-- include admission_now.lua
local count, had, new, free = #ARGV - 1, {}, {}, {}
if known and open('<d', known, 25) == rule then
	free = call('ZRANGEBYSCORE', frees, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 256)
end
for place = 1, count do
	had[place], at = open('<d', ARGV[1], at)
	new[place] = 0
end

-- `up`: places that have got a start, whose own is for the next of this node, else given up.
local takes, up, gives, at_free, at_up, place, left = {}, {}, {}, 1, 1, 1, 0
while place <= count do
	local start, own = free[at_free] and tonumber(free[at_free + 1]), up[at_up] and had[up[at_up]]
	if own and (not start or own < start) then start = own else own = nil end
	if not start then break end
	while place <= count and had[place] > 0 and had[place] <= start do place = place + 1 end
	if place > count then break end
	local takes_it = start <= now + near or call('ZCOUNT', frees, '(' .. now, start) >=
		call('ZCOUNT', waits, '(' .. start, had[place] > 0 and had[place] or '+inf')
	if own then
		if not takes_it then gives[#gives + 1] = up[at_up] end
		at_up = at_up + 1
	else
		if takes_it then takes[#takes + 1] = at_free end
		at_free = at_free + 2
	end
	if takes_it then
		if had[place] > 0 then up[#up + 1] = place else gives[#gives + 1] = place end
		place = place + 1
	elseif left == 0 then
		left = start
	end
end
for u = at_up, #up do gives[#gives + 1] = up[u] end

for t = 1, #takes do
	local start = free[takes[t] + 1]
	call('ZREM', frees, free[takes[t]])
	call('ZADD', waits, start, ARGV[gives[t] + 1])
	new[gives[t]] = tonumber(start)
end
local answer = {pack('<dd', now, left)}
for p = 1, count do answer[p + 1] = pack('<d', new[p]) end
return table.concat(answer)
