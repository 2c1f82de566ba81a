-- At most `starts` in any starts_span ms. A start that is not now is handed out in advance; those given back (:f) go
-- first, the nearest of them, also to a node whose waiters wait for later ones: there it is for whoever came first, not for
-- who brought it in. They lie evenly apart, so that they reach the vendor in their order and a late burst does not meet the
-- next one; where `apart` is 1, one that is now is apart from the next, too.
given_back = call('ZRANGEBYSCORE', queue .. ':f', now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
if given_back[1] then
	start = tonumber(given_back[2])
else
	local nth, newest = call('LINDEX', queue, starts - 1), call('LINDEX', queue, 0)
	newest = newest and tonumber(newest) or 0
	if newest > now - apart then newest = newest + floor(starts_span / starts) end
	start = max(now, newest, nth and nth + starts_span or 0)
end
