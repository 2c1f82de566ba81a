-- Sliding windows: what admission's scripts share (admission_scripts.c puts it before each of them).
--
-- A window is a run of events (time, requests, input, output), oldest first, and their sums. Sums, first
-- and last event are in one string, the events between them in a list beside it (:e). An event counts
-- while now - time <= span, so two that do not count together are more than span apart. Events of one
-- millisecond are one entry. From 10,000 on, an entry may cover 100 ms and counts as of its last
-- moment: later than it was, never earlier. Times never go back: an event before the last one is
-- entered at the last one's time.
--
-- The string, doubles: 1-3 sums of requests, input, output; 4, 5 number of the first and the last event
-- (none: 5 < 4); 6-9 the first, of use from two events on: time, requests, input, output; 10 when
-- the last one began; 11-14 the last one; 15 until when the list was told to live; 16 when the
-- window was made. 17-21 are the owner's: of a subject 17 places taken, 18 day, 19-21 the day's requests,
-- input, output; of a vendor key 17 state, 18 until, 19 failures in a row, 20 last pause, 21
-- status that was the reason.
-- What follows them is a subject's places, see admission_admit.lua.
local call, pack, open = redis.call, struct.pack, struct.unpack
local floor, max, min = math.floor, math.max, math.min
local STATE, STATE_AND_MORE, ENTRY = '<ddddddddddddddddddddd', '<dddddddddddddddddddddc0', '<I6I4I6I6'

-- more: what follows the numbers, a string.
local function window_pack(w, more)
	return pack(STATE_AND_MORE, w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], w[10], w[11], w[12], w[13], w[14], w[15],
		w[16], w[17], w[18], w[19], w[20], w[21], more)
end

local function clock()
	local t = call('TIME')
	return t[1] * 1000 + floor(t[2] / 1000)
end

local function window_new(now)
	return {0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, now, 0, 0, 0, 0, 0}
end
