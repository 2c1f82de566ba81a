-- Sliding windows: what admission's scripts share. A line "-- include NAME" stands for that file (admission_scripts.c).
-- What one script does in one place is included there and not a function: Redis runs all of a script each time, and
-- making a function costs as much as reading a key. What is rare is a function in the branch that needs it.
--
-- A window is a run of events (time, requests, input, output), oldest first, and their sums. Sums, first
-- and last event are in one string, the events between them in a list beside it (:e). An event counts
-- while now - time <= span, so two that do not count together are more than span apart. Events of one
-- millisecond are one entry. From 10,000 on, an entry may cover 100 ms and counts as of its last
-- moment: later than it was, never earlier. Times never go back: where the clock does, an event is
-- entered at the last one's time. One that waits in a queue is in an event as of its arrival, and moves to one as of its
-- start when its turn has come.
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
